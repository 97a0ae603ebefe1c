"""Load a data set as arrays: the official images, cut into train, validation and test.

    python -c "from harness.data.datasets import load; from harness.schema import DatasetConfig;
    print(load(DatasetConfig(name='digits', validation_size=200)).split_hash)"

Images are uint8 with 3 channels at their own resolution; everything that is done to them later
(crop, flip, policy, normalisation) is `harness/augment`'s.
"""

from __future__ import annotations

import functools
import importlib
from dataclasses import dataclass

import numpy as np

from harness.data.catalog import CATALOG, DatasetInfo, find, misfits, missing
from harness.data.download import download
from harness.data.official import Bytes, Integers, Official
from harness.data.splits import cut, split_hash
from harness.errors import UserError
from harness.schema import DatasetConfig


@dataclass(frozen=True)
class Split:
    """Images: uint8 [N, 3, H, W], contiguous. Labels: int64 [N]. Ids: int64 [N], rising.

    An id is a sample's position in the official set; it keys every random draw for that sample.
    """

    images: Bytes
    labels: Integers
    ids: Integers

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Dataset:
    """The three parts of one data set, which share no image, and the hash of their ids."""

    train: Split
    validation: Split
    test: Split
    info: DatasetInfo
    split_hash: str


def _verify(official: Official, info: DatasetInfo) -> None:
    """Refuse files that were read but hold something other than the data set."""
    for part, images, labels, size in (
        ("training", official.train_images, official.train_labels, info.train_size),
        ("test", official.test_images, official.test_labels, info.test_size),
    ):
        side = info.resolution
        if not len(images) == len(labels) == size or images.shape[2:] != (side, side):
            raise UserError(
                f"the {part} set of {info.name} should have {size} images of {side}x{side} pixels, "
                f"and its files hold {len(images)} of {images.shape[3]}x{images.shape[2]} with "
                f"{len(labels)} labels; replace the files."
            )
        if labels.min() < 0 or labels.max() >= info.num_classes:
            raise UserError(
                f"the {part} set of {info.name} has labels from {labels.min()} to {labels.max()}, "
                f"outside its {info.num_classes} classes; replace the files."
            )


def _split(images: Bytes, labels: Integers, ids: Integers) -> Split:
    chosen = images[ids]
    if chosen.shape[1] == 1:
        chosen = np.repeat(chosen, 3, axis=1)
    return Split(np.ascontiguousarray(chosen), labels[ids], ids)


@functools.lru_cache(maxsize=2)  # a worker trains many stages, one after the other, on one set
def load(config: DatasetConfig, data_root: str | None = None) -> Dataset:
    """Read and cut a data set, downloaded first if it is nowhere. Arrays are shared: read only.

    Raises:
        UserError: a config that does not fit, files that are absent and cannot be downloaded,
            or files that are not what they should be.
    """
    if problems := misfits(config):
        raise UserError(" ".join(problems))
    info = CATALOG[config.name]
    folder = find(info, data_root)
    if folder is None and info.torchvision is not None:
        folder = download(info, data_root)
    if absent := missing(info, data_root):
        raise UserError(absent)
    official = importlib.import_module(f"harness.data.{info.module}").read(folder, info)
    _verify(official, info)
    train, validation, test = cut(
        official.train_labels,
        official.test_labels,
        validation_size=config.validation_size,
        train_size=config.train_size,
        test_size=config.test_size,
        seed=config.split_seed,
    )
    return Dataset(
        train=_split(official.train_images, official.train_labels, train),
        validation=_split(official.train_images, official.train_labels, validation),
        test=_split(official.test_images, official.test_labels, test),
        info=info,
        split_hash=split_hash(train, validation, test),
    )
