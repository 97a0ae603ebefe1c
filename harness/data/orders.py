"""The samples of each batch: a function of (seed, epoch) that is the same for all loaders.

The number of ranks only determines into how many parts a global batch is cut.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from harness import rng

Integers = npt.NDArray[np.int64]


def rank_part(length: int, rank: int, world_size: int) -> slice:
    """Return part number `rank` of `world_size` contiguous parts. Lengths differ by at most one."""
    return slice(length * rank // world_size, length * (rank + 1) // world_size)


def training_order(seed: int, epoch: int, length: int, batch_size: int) -> Integers:
    """Return positions in the training split by global batch [steps, batch_size].

    A remainder that does not fill a batch is dropped.
    """
    order = rng.permutation(seed, "order", epoch, length)
    steps = length // batch_size
    return order[: steps * batch_size].reshape(steps, batch_size)


def fixed_order(length: int, count: int, batch_size: int) -> Integers:
    """Return the positions of `Loader.fixed` by batch.

    The order is random, because files are often sorted by class.
    """
    order = rng.permutation(0, "fixed", 0, length)[:count]
    size = min(batch_size, len(order))
    steps = len(order) // size
    return order[: steps * size].reshape(steps, size)
