"""Which samples are in which batch: a function of (seed, epoch), the same for all loaders.

The number of ranks only cuts global batches into parts.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator

import numpy as np

from harness import rng
from harness.data.types import Batch, Dataset, Integers, SplitName


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


class OrderedLoader(ABC):
    """The order of a `types.Loader`. `batch_size` is global; the batches are this rank's part."""

    def __init__(self, dataset: Dataset, batch_size: int, rank: int, world_size: int) -> None:
        self._sizes = {
            "train": len(dataset.train),
            "validation": len(dataset.validation),
            "test": len(dataset.test),
        }
        self._batch_size, self._rank, self._world_size = batch_size, rank, world_size
        self.steps_per_epoch = len(dataset.train) // batch_size

    def epoch(self, seed: int, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        """See `Loader.epoch`."""
        order = training_order(seed, epoch, self._sizes["train"], self._batch_size)
        share = rank_part(self._batch_size, self._rank, self._world_size)
        return self._training_batches(order[start_step:, share], seed, epoch)

    def evaluate(self, split: SplitName, batch_size: int) -> Iterator[Batch]:
        """See `Loader.evaluate`."""
        share = rank_part(self._sizes[split], self._rank, self._world_size)
        rows = np.arange(share.start, share.stop, dtype=np.int64)
        batches = (rows[i : i + batch_size] for i in range(0, len(rows), batch_size))
        return self._plain_batches(split, batches)

    def fixed(self, count: int, batch_size: int) -> Iterator[Batch]:
        """See `Loader.fixed`."""
        return self._plain_batches("train", fixed_order(self._sizes["train"], count, batch_size))

    @abstractmethod
    def _training_batches(self, rows: Integers, seed: int, epoch: int) -> Iterator[Batch]:
        """Return the training batches of an epoch; `rows` are positions, a row for each batch."""

    @abstractmethod
    def _plain_batches(self, split: SplitName, rows: Iterable[Integers]) -> Iterator[Batch]:
        """Return batches without random crops; each item of `rows` has the positions of one."""
