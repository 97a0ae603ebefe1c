"""Load a data set, cut into train, validation and test: as arrays, or as images to be decoded.

    python -c "from harness.data.datasets import load; from harness.schema import DatasetConfig;
    print(load(DatasetConfig(name='digits', validation_size=200)).split_hash)"

Images in memory are uint8 with 3 channels at their own resolution; others are decoded batch by
batch. What is done to them later (flip, policy, normalisation) is `harness/augment`'s.
"""

from __future__ import annotations

import functools
import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from harness.data.catalog import CATALOG, DatasetInfo, check_counts, find, misfits, missing
from harness.data.download import download
from harness.data.manifest import ORIGINAL
from harness.data.official import Bytes, Integers, Official
from harness.data.source import INSTALL_FFCV, choose
from harness.data.splits import cut, split_hash
from harness.errors import UserError
from harness.schema import DatasetConfig

if TYPE_CHECKING:
    from harness.data.streamed import Coded


@dataclass(frozen=True)
class Split:
    """Images: uint8 [N, 3, H, W], contiguous, or coded. Labels: int64 [N]. Ids: int64 [N], rising.

    An id is a sample's position in the official set; it keys every random draw for that sample.
    """

    images: Bytes | Coded
    labels: Integers
    ids: Integers

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Dataset:
    """The three parts of one data set, which share no image, and the hash of their ids.

    `why` says how its images are read, and what that was chosen for; `stored` what a writer did to
    them before (`manifest.Manifest.stored`).
    """

    train: Split
    validation: Split
    test: Split
    info: DatasetInfo
    split_hash: str
    config: DatasetConfig
    why: str = "in memory"
    stored: str = ORIGINAL

    @property
    def resolution(self) -> int:
        """Pixels a side, of every image but those of a training that starts with smaller ones."""
        return self.config.resolution or self.info.resolution

    @property
    def crop_scale(self) -> tuple[float, float] | None:
        """Least and most of an image's area in a training crop; None where nothing is cropped."""
        return self.config.crop_scale or self.info.crop_scale


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
def load(
    config: DatasetConfig,
    data_root: str | None = None,
    loader: str = "auto",
    cache: str = "page",
) -> Dataset:
    """Read and cut a data set, downloaded first if it is nowhere. Arrays are shared: read only.

    `loader` and `cache` are those of `RunConfig`.

    Raises:
        UserError: a config that does not fit, files that are absent and cannot be downloaded,
            files that are not what they should be, or a loader that cannot read them.
    """
    if problems := misfits(config):
        raise UserError(" ".join(problems))
    info = CATALOG[config.name]
    found = choose(info, data_root, loader, ffcv_trouble)
    if found.folder is not None:
        read = _from_betons if found.loader == "ffcv" else _from_tree
        return read(config, info, found.folder, f"{found.loader}: {found.why}", cache)
    official = read_official(info, data_root)
    train, validation, test = cut_as(config, official.train_labels, official.test_labels)
    return Dataset(
        train=_split(official.train_images, official.train_labels, train),
        validation=_split(official.train_images, official.train_labels, validation),
        test=_split(official.test_images, official.test_labels, test),
        info=info,
        split_hash=split_hash(train, validation, test),
        config=config,
    )


def read_official(info: DatasetInfo, data_root: str | None) -> Official:
    """The official images of a set that is used as it is, downloaded first if it is nowhere."""
    assert info.module is not None
    folder = find(info, data_root)
    if folder is None and info.torchvision is not None:
        folder = download(info, data_root)
    if absent := missing(info, data_root):
        raise UserError(absent)
    official: Official = importlib.import_module(f"harness.data.{info.module}").read(folder, info)
    _verify(official, info)
    return official


def cut_as(
    config: DatasetConfig, train_labels: Integers, test_labels: Integers
) -> tuple[Integers, Integers, Integers]:
    """Ids of train, validation and test as the config cuts them (`splits.cut`)."""
    return cut(
        train_labels,
        test_labels,
        validation_size=config.validation_size,
        train_size=config.train_size,
        test_size=config.test_size,
        seed=config.split_seed,
    )


def first_images(dataset: Dataset, count: int) -> Bytes:
    """The first training images, uint8 [count, 3, H, W]; of files of any size, their centres."""
    from harness.data.crops import Centre

    split, side = dataset.train, dataset.resolution
    if isinstance(split.images, np.ndarray):
        return split.images[:count]
    ids = split.ids[:count]
    out = np.empty((len(ids), side, side, 3), dtype=np.uint8)
    split.images.job(np.arange(len(ids)), ids, Centre())(slice(0, len(ids)), out)
    return np.ascontiguousarray(out.transpose(0, 3, 1, 2))


@functools.cache
def ffcv_trouble() -> str | None:
    """Why FFCV cannot be used here, and what to do about it; None if it can. Takes seconds."""
    try:
        importlib.import_module("harness.data.ffcv")
    except (ImportError, OSError) as error:
        return f"FFCV cannot be imported ({error}): {INSTALL_FFCV}"
    return None


def _from_betons(
    config: DatasetConfig, info: DatasetInfo, folder: Path, why: str, cache: str
) -> Dataset:
    from harness.data.beton import open_parts

    (train, validation, test), stored = open_parts(folder, config, info, cache)
    hashed = split_hash(train.ids, validation.ids, test.ids)
    return Dataset(train, validation, test, info, hashed, config, why, stored)


def _from_tree(
    config: DatasetConfig, info: DatasetInfo, folder: Path, why: str, _cache: str
) -> Dataset:
    from harness.data.imagefolder import Folder, scan_both

    official, test_set = scan_both(folder)
    check_counts(info, len(official.labels), len(test_set.labels), len(official.classes), folder)
    train, validation, test = cut_as(config, official.labels, test_set.labels)
    return Dataset(
        train=Split(Folder(official, train), official.labels[train], train),
        validation=Split(Folder(official, validation), official.labels[validation], validation),
        test=Split(Folder(test_set, test), test_set.labels[test], test),
        info=info,
        split_hash=split_hash(train, validation, test),
        config=config,
        why=why,
    )
