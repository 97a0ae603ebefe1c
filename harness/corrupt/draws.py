"""Random numbers of a corruption: functions of (corruption, severity, image id) only."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from harness import rng

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
SEED = 0  # every sweep evaluates on the same corrupted images


class Draws:
    """The draws for the images `ids` [N]; each call has a random stream of its own."""

    def __init__(self, corruption: str, severity: int, ids: Integers):
        self._name, self._severity, self._ids = corruption, severity, ids
        self._calls = 0

    def _next_stream(self) -> str:
        self._calls += 1
        return f"corruption.{self._name}.{self._calls}"

    def uniform(self, low: float, high: float, *shape: int) -> Floats:
        """Return uniform numbers [N, *shape] in [low, high)."""
        count = int(np.prod(shape))
        drawn = rng.uniform(SEED, self._next_stream(), self._severity, self._ids, count)
        return (low + (high - low) * drawn).reshape(len(self._ids), *shape)

    def normal(self, mean: float, deviation: float, *shape: int) -> Floats:
        """Return normal numbers [N, *shape]."""
        count = int(np.prod(shape))
        drawn = rng.normal(SEED, self._next_stream(), self._severity, self._ids, count)
        return (mean + deviation * drawn).reshape(len(self._ids), *shape)

    def integers(self, low: int, high: int, *shape: int) -> Integers:
        """Return integers [N, *shape] in [low, high)."""
        count = int(np.prod(shape))
        stream = self._next_stream()
        drawn = rng.integers(SEED, stream, self._severity, self._ids, count, high - low)
        return (low + drawn).reshape(len(self._ids), *shape)
