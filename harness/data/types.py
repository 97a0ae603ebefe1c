"""The types that the modules of this package share.

torch is imported for type checkers only, so that a plan can use these types without it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
import numpy.typing as npt

from harness.data.catalog import DatasetInfo
from harness.data.orders import Integers, fixed_order, rank_part, training_order
from harness.schema import DatasetConfig

if TYPE_CHECKING:
    import torch

Bytes = npt.NDArray[np.uint8]
SplitName = Literal["train", "validation", "test"]
Crop = Callable[[Integers, Integers, Integers], Integers]
"""A function of ids, heights and widths, int64 [N], that returns the box of each image to use.

A box is a row of int64 [N, 4]: top, left, height and width in pixels.
"""
Decoder = Callable[[slice, Bytes], None]
"""A function that decodes a slice of a batch into an array, uint8 [n, side, side, 3]."""


@dataclass(frozen=True)
class Official:
    """The official training and test set as a reader returns them, in their official order.

    Images: uint8 [N, C, H, W], where C is 1 or 3. Labels: int64 [N], from 0.
    """

    train_images: Bytes
    train_labels: Integers
    test_images: Bytes
    test_labels: Integers


class EncodedImages(Protocol):
    """The images of a split that lie in files and are decoded when a batch needs them.

    `loader` is the name that is recorded with a result.
    """

    loader: str

    def decoder(self, rows: Integers, ids: Integers, crop: Crop) -> Decoder:
        """Return a function that decodes the images at `rows` of the split, whose ids are `ids`.

        Several threads call it at the same time, each with another slice.
        """


@dataclass(frozen=True)
class Split:
    """One split of a data set: train, validation or test.

    Images: uint8 [N, 3, H, W], contiguous, or encoded. Labels: int64 [N]. Ids: int64 [N], in
    ascending order. An id is a sample's position in the official set, and every random draw for the
    sample depends on it.
    """

    images: Bytes | EncodedImages
    labels: Integers
    ids: Integers

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Dataset:
    """The three splits of a data set, which share no image, and the hash of their ids.

    `loader_choice` names the loader and the reason for it. `stored` tells how the images were
    changed when `.beton` files were written (`manifest.Manifest.stored`).
    """

    train: Split
    validation: Split
    test: Split
    info: DatasetInfo
    split_hash: str
    config: DatasetConfig
    loader_choice: str = "in memory"
    stored: str = "original"

    @property
    def splits(self) -> dict[SplitName, Split]:
        """The three splits by name."""
        return {"train": self.train, "validation": self.validation, "test": self.test}

    @property
    def resolution(self) -> int:
        """Side of the images in pixels; with progressive resizing, the side at the end."""
        return self.config.resolution or self.info.resolution

    @property
    def crop_scale(self) -> tuple[float, float] | None:
        """Smallest and largest share of an image's area in a training crop; None: no cropping."""
        return self.config.crop_scale or self.info.crop_scale


@dataclass(frozen=True)
class Batch:
    """Images: uint8 [n, 3, H, W] and labels: int64 [n] on the device; ids: int64 [n] on the host.

    Images may be a view of the loader's own memory, so they must not be written to.
    """

    images: torch.Tensor
    labels: torch.Tensor
    ids: Integers


class Loader(ABC):
    """Returns this rank's part of each batch.

    The global batches are the same for all loaders and any number of ranks. `batch_size` is that of
    a global batch. `name` is recorded with a result.
    """

    name: str

    def __init__(self, dataset: Dataset, batch_size: int, rank: int, world_size: int) -> None:
        self._sizes = {name: len(split) for name, split in dataset.splits.items()}
        self._batch_size, self._rank, self._world_size = batch_size, rank, world_size
        self.steps_per_epoch = len(dataset.train) // batch_size

    def epoch(self, seed: int, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        """Return this rank's part of each global batch of a training epoch, from `start_step`."""
        order = training_order(seed, epoch, self._sizes["train"], self._batch_size)
        share = rank_part(self._batch_size, self._rank, self._world_size)
        return self._training_batches(order[start_step:, share], seed, epoch)

    def evaluate(self, split: SplitName, batch_size: int) -> Iterator[Batch]:
        """Return this rank's part of a split. All ranks together see each example once, in order.

        `batch_size` is that of this rank. The last batch may be smaller. A rank may get no batch.
        """
        share = rank_part(self._sizes[split], self._rank, self._world_size)
        rows = np.arange(share.start, share.stop, dtype=np.int64)
        batches = (rows[i : i + batch_size] for i in range(0, len(rows), batch_size))
        return self._plain_batches(split, batches)

    def fixed(self, count: int, batch_size: int) -> Iterator[Batch]:
        """Return batches of training images for batch-norm statistics, the same on every rank.

        They hold `count` images, or all if there are fewer. A remainder that does not fill a batch
        is dropped, unless it is the only batch.
        """
        return self._plain_batches("train", fixed_order(self._sizes["train"], count, batch_size))

    @abstractmethod
    def close(self) -> None:
        """Free memory, threads and files. The loader cannot be used afterwards."""

    @abstractmethod
    def _training_batches(self, rows: Integers, seed: int, epoch: int) -> Iterator[Batch]:
        """Return the training batches of an epoch; a row of `rows` has the positions of a batch."""

    @abstractmethod
    def _plain_batches(self, split: SplitName, rows: Iterable[Integers]) -> Iterator[Batch]:
        """Return batches without random crops; an item of `rows` has the positions of a batch."""
