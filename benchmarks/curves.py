"""True curves of accuracy over magnitude, and the luck of runs, for simulated sweeps."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from analysis.columns import NONE

M8 = tuple(step / 10 for step in range(8))  # magnitudes of most scenarios
R5 = (NONE, 0.1, 0.25, 0.4, 0.6, 0.8)
Curve = Callable[[int, float], float]  # (size, magnitude) -> points of accuracy, from the top
Noise = Callable[[int, float], float]  # (size, magnitude) -> standard deviation, points


def parabola(left: Sequence[float], right: Sequence[float], optimum: float) -> Curve:
    """Return curves that lose `left[size]` points at 0.4 below the optimum, `right` above it."""
    return _curve(left, right, optimum, 2)


def kink(left: Sequence[float], right: Sequence[float], optimum: float) -> Curve:
    """Return curves that fall on straight lines from a kink at the optimum."""
    return _curve(left, right, optimum, 1)


def _curve(left: Sequence[float], right: Sequence[float], optimum: float, power: int) -> Curve:
    def curve(size: int, magnitude: float) -> float:
        depth = (left if magnitude < optimum else right)[size]
        return -depth * abs((magnitude - optimum) / 0.4) ** power

    return curve


def flat(_size: int, _magnitude: float) -> float:
    """Return the same accuracy everywhere."""
    return 0.0


def shifting(depth: float, optima: Sequence[float]) -> Curve:
    """Return parabolas whose optimum differs from size to size."""
    return lambda size, m: -depth * ((m - optima[size]) / 0.4) ** 2


def luck_of_run(chance: np.random.Generator, has_tails: bool) -> float:
    """Return a draw of variance 1: normal, or with the tails of Student's t with 3 degrees."""
    if has_tails:
        return float(chance.standard_t(3)) / math.sqrt(3)
    return float(chance.standard_normal())
