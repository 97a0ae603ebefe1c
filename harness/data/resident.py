"""The loader for data sets that fit in memory: all images lie on the device, a batch is an index.

On the CPU the tensors share memory with the data set's arrays, so all stages of a process do too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from harness.data.orders import fixed_order, rank_part, training_order
from harness.data.types import Batch, Dataset, Integers, Split, SplitName


@dataclass(frozen=True)
class _Part:
    images: torch.Tensor
    labels: torch.Tensor
    ids: Integers

    @classmethod
    def of(cls, split: Split, device: torch.device) -> _Part:
        if not isinstance(split.images, np.ndarray):
            raise TypeError("the images of this split are encoded: use the streamed loader")
        images, labels = torch.from_numpy(split.images), torch.from_numpy(split.labels)
        return cls(images.to(device), labels.to(device), split.ids)

    def batches(self, order: Integers) -> Iterator[Batch]:
        """Return a batch for each row of positions. One copy to the device serves all of them."""
        rows = torch.from_numpy(np.ascontiguousarray(order)).to(self.images.device)
        for positions, row in zip(order, rows, strict=True):
            yield Batch(self.images[row], self.labels[row], self.ids[positions])


class Resident:
    """A `Loader` over tensors. `batch_size` is global; the batches are this rank's part."""

    name = "resident"

    def __init__(
        self, dataset: Dataset, batch_size: int, rank: int, world_size: int, device: torch.device
    ) -> None:
        self._parts: dict[str, _Part] = {
            "train": _Part.of(dataset.train, device),
            "validation": _Part.of(dataset.validation, device),
            "test": _Part.of(dataset.test, device),
        }
        self._batch_size, self._rank, self._world_size = batch_size, rank, world_size
        self.steps_per_epoch = len(dataset.train) // batch_size

    def epoch(self, seed: int, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        """See `Loader.epoch`."""
        train = self._parts["train"]
        order = training_order(seed, epoch, len(train.ids), self._batch_size)
        share = rank_part(self._batch_size, self._rank, self._world_size)
        return train.batches(order[start_step:, share])

    def evaluate(self, split: SplitName, batch_size: int) -> Iterator[Batch]:
        """See `Loader.evaluate`."""
        part = self._parts[split]
        share = rank_part(len(part.ids), self._rank, self._world_size)
        for start in range(share.start, share.stop, batch_size):
            rows = slice(start, min(start + batch_size, share.stop))
            yield Batch(part.images[rows], part.labels[rows], part.ids[rows])

    def fixed(self, count: int, batch_size: int) -> Iterator[Batch]:
        """See `Loader.fixed`."""
        train = self._parts["train"]
        return train.batches(fixed_order(len(train.ids), count, batch_size))

    def close(self) -> None:
        """See `Loader.close`."""
        self._parts.clear()
