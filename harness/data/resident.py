"""The loader for data sets that fit in memory: a batch is an index into tensors on the device.

On a CPU the tensors share memory with the data set's arrays. So all stages of a process use the
same memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from harness.data.types import Batch, Dataset, Integers, Loader, Split, SplitName


def _on_device(split: Split, device: torch.device) -> tuple[Tensor, Tensor, Integers]:
    """Return the images and labels on the device, and the ids on the host."""
    if not isinstance(split.images, np.ndarray):
        raise TypeError("the images of this split are encoded: use the streamed loader")
    images, labels = torch.from_numpy(split.images), torch.from_numpy(split.labels)
    return images.to(device), labels.to(device), split.ids


class Resident(Loader):
    """A `Loader` over tensors."""

    name = "resident"

    def __init__(
        self, dataset: Dataset, batch_size: int, rank: int, world_size: int, device: torch.device
    ) -> None:
        super().__init__(dataset, batch_size, rank, world_size)
        self._parts = {name: _on_device(split, device) for name, split in dataset.splits.items()}

    def _training_batches(self, rows: Integers, seed: int, epoch: int) -> Iterator[Batch]:
        images, labels, ids = self._parts["train"]
        # One copy to the device serves all batches, so that none of them waits for the device.
        indices = torch.from_numpy(np.ascontiguousarray(rows)).to(images.device)
        for positions, index in zip(rows, indices, strict=True):
            yield Batch(images[index], labels[index], ids[positions])

    def _plain_batches(self, split: SplitName, rows: Iterable[Integers]) -> Iterator[Batch]:
        images, labels, ids = self._parts[split]
        for positions in rows:
            index = torch.from_numpy(positions).to(images.device)
            yield Batch(images[index], labels[index], ids[positions])

    def close(self) -> None:
        """See `Loader.close`."""
        self._parts.clear()
