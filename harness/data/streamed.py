"""The loader for images that are decoded when a batch needs them: `.beton` files or image files.

What a batch holds depends only on (seed, epoch, step): not on threads, ranks or timing.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

import numpy as np
import torch

from harness.data.crops import Centre, RandomResized, Whole, side_at
from harness.data.orders import fixed_order, rank_part, training_order
from harness.data.pipeline import Pipeline, encoded
from harness.data.types import Batch, Crop, Dataset, Integers, Split, SplitName


class Streamed:
    """A `Loader` over encoded images. `batch_size` is global; the batches are this rank's part.

    `epochs` is the length of the training: progressive resizing depends on the share that is done.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int,
        rank: int,
        world_size: int,
        device: torch.device,
        threads: int,
        epochs: int,
    ) -> None:
        self._splits: dict[str, Split] = {
            "train": dataset.train,
            "validation": dataset.validation,
            "test": dataset.test,
        }
        self.name = encoded(dataset.train).loader
        self.steps_per_epoch = len(dataset.train) // batch_size
        self._dataset, self._epochs = dataset, epochs
        self._batch_size, self._rank, self._world_size = batch_size, rank, world_size
        self._pipeline = Pipeline(threads, device)
        self._next_order: tuple[tuple[int, int], Integers] | None = None  # (seed, epoch), order

    def side(self, epoch: int) -> int:
        """Return the side of the training images of this epoch, in pixels."""
        config = self._dataset.config
        return side_at(
            epoch, self._epochs, self._dataset.resolution, config.start_resolution, config.ramp
        )

    def epoch(self, seed: int, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        """See `Loader.epoch`. A thread sorts the next epoch meanwhile: 0.9 s for ImageNet."""
        order = self._order(seed, epoch)
        if epoch + 1 < self._epochs:
            self._pipeline.threads.submit(functools.partial(self._sort_ahead, seed, epoch + 1))
        share = rank_part(self._batch_size, self._rank, self._world_size)
        scale = self._dataset.crop_scale
        crop = Whole() if scale is None else RandomResized(seed, epoch, scale)
        rows = order[start_step:, share]
        return self._pipeline.batches(self._splits["train"], rows, crop, self.side(epoch))

    def _order(self, seed: int, epoch: int) -> Integers:
        sorted_ahead = self._next_order
        if sorted_ahead is not None and sorted_ahead[0] == (seed, epoch):
            return sorted_ahead[1]
        return training_order(seed, epoch, len(self._dataset.train), self._batch_size)

    def _sort_ahead(self, seed: int, epoch: int) -> None:
        order = training_order(seed, epoch, len(self._dataset.train), self._batch_size)
        self._next_order = (seed, epoch), order

    def evaluate(self, split: SplitName, batch_size: int) -> Iterator[Batch]:
        """See `Loader.evaluate`."""
        part = self._splits[split]
        share = rank_part(len(part), self._rank, self._world_size)
        rows = np.arange(share.start, share.stop, dtype=np.int64)
        batches = (rows[i : i + batch_size] for i in range(0, len(rows), batch_size))
        return self._pipeline.batches(
            part, batches, self._evaluation_crop(), self._dataset.resolution
        )

    def fixed(self, count: int, batch_size: int) -> Iterator[Batch]:
        """See `Loader.fixed`."""
        order = fixed_order(len(self._dataset.train), count, batch_size)
        return self._pipeline.batches(
            self._splits["train"], order, self._evaluation_crop(), self._dataset.resolution
        )

    def close(self) -> None:
        """See `Loader.close`."""
        self._pipeline.close()
        self._splits.clear()

    def _evaluation_crop(self) -> Crop:
        return Whole() if self._dataset.crop_scale is None else Centre()
