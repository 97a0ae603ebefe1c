"""The loader for images that are decoded when a batch needs them: `.beton` files or image files.

The content of a batch depends only on (seed, epoch, step), not on threads, ranks or timing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch

from harness.data.crops import centre, random_resized, side_at, whole
from harness.data.pipeline import Pipeline, encoded
from harness.data.types import Batch, Dataset, Integers, Loader, SplitName


class Streamed(Loader):
    """A `Loader` over encoded images.

    `epochs` is the length of the training, on whose completed share progressive resizing depends.
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
        super().__init__(dataset, batch_size, rank, world_size)
        self._splits = dataset.splits
        self.name = encoded(dataset.train).loader
        self._dataset, self._epochs = dataset, epochs
        self._pipeline = Pipeline(threads, device)

    def _training_batches(self, rows: Integers, seed: int, epoch: int) -> Iterator[Batch]:
        config, scale = self._dataset.config, self._dataset.crop_scale
        crop = whole if scale is None else random_resized(seed, epoch, scale)
        side = side_at(
            epoch, self._epochs, self._dataset.resolution, config.start_resolution, config.ramp
        )
        return self._pipeline.batches(self._splits["train"], rows, crop, side)

    def _plain_batches(self, split: SplitName, rows: Iterable[Integers]) -> Iterator[Batch]:
        crop = whole if self._dataset.crop_scale is None else centre
        return self._pipeline.batches(self._splits[split], rows, crop, self._dataset.resolution)

    def close(self) -> None:
        """See `Loader.close`."""
        self._pipeline.close()
        self._splits.clear()
