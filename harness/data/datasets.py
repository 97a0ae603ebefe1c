"""Load a data set and cut it into train, validation and test.

    python -c "from harness.data import load; from harness.schema import DatasetConfig;
    print(load(DatasetConfig(name='digits', validation_size=200)).split_hash)"

Images of a set that fits in memory are arrays, uint8 with 3 channels at their own resolution. The
images of other sets lie in files and are decoded batch by batch. `harness/augment` flips, augments
and normalises them afterwards.
"""

from __future__ import annotations

import functools
import importlib
import sys
from pathlib import Path

import numpy as np

from harness.data.catalog import DatasetInfo, find, info_of, misfits, missing
from harness.data.crops import centre
from harness.data.download import download
from harness.data.imagefolder import FolderImages
from harness.data.source import INSTALL_FFCV, choose
from harness.data.splits import cut, split_hash
from harness.data.tree import ImageTree, check_files, left_out_note, scan_parts
from harness.data.types import Bytes, Dataset, Integers, Official, Split
from harness.errors import UserError
from harness.schema import DatasetConfig


@functools.lru_cache(maxsize=2)  # a worker trains many stages one after the other on the same set
def load(
    config: DatasetConfig,
    data_root: str | None = None,
    loader: str = "auto",
    cache: str = "page",
) -> Dataset:
    """Read and cut a data set; download it first if no folder has its files.

    `loader` and `cache` are `run.loader` and `run.data_cache`. Callers share the arrays, so they
    must not write to them.

    Raises:
        UserError: a config that does not fit, files that are missing and cannot be downloaded,
            files with wrong content, or a loader that cannot read them.
    """
    if problems := misfits(config):
        raise UserError(" ".join(problems))
    info = info_of(config)
    source = choose(info, data_root, loader, ffcv_trouble)
    choice, stored = f"{source.loader}: {source.reason}", "original"
    if source.folder is None:
        choice, splits = "in memory", _array_splits(config, info, data_root)
    elif source.loader == "ffcv":
        from harness.data.beton import beton_splits  # imported here, as FFCV may be missing

        splits, stored = beton_splits(source.folder, config, info, cache)
    else:
        splits = _tree_splits(config, info, source.folder)
    train, validation, test = splits
    digest = split_hash(train.ids, validation.ids, test.ids)
    return Dataset(train, validation, test, info, digest, config, choice, stored)


def _array_splits(config: DatasetConfig, info: DatasetInfo, data_root: str | None) -> list[Split]:
    official = read_official(info, data_root)
    train, validation, test = cut(config, official.train_labels, official.test_labels)
    return [
        _split(official.train_images, official.train_labels, train),
        _split(official.train_images, official.train_labels, validation),
        _split(official.test_images, official.test_labels, test),
    ]


def _tree_splits(config: DatasetConfig, info: DatasetInfo, folder: Path) -> list[Split]:
    official, test_set = scan_parts(folder, info.places)
    check_files(info, official, test_set)
    if (note := left_out_note([official, test_set])) is not None:
        print(f"note: {note}", file=sys.stderr)
    train, validation, test = cut(config, official.labels, test_set.labels)
    return [
        _tree_split(official, train), _tree_split(official, validation), _tree_split(test_set, test)
    ]  # fmt: skip


def _tree_split(tree: ImageTree, ids: Integers) -> Split:
    return Split(FolderImages(tree.root, [tree.paths[i] for i in ids]), tree.labels[ids], ids)


def read_official(info: DatasetInfo, data_root: str | None) -> Official:
    """Return the official images of a set that has a reader; download them if they are missing."""
    folder = find(info, data_root)
    if folder is None and info.torchvision is not None:
        folder = download(info, data_root)
    if absent := missing(info, data_root):
        raise UserError(absent)
    official: Official = importlib.import_module(f"harness.data.{info.reader}").read(folder, info)
    _verify(official, info)
    return official


def _verify(official: Official, info: DatasetInfo) -> None:
    """Raise `UserError` if files could be read but do not hold this data set."""
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
    selected = images[ids]
    if selected.shape[1] == 1:
        selected = np.repeat(selected, 3, axis=1)
    return Split(np.ascontiguousarray(selected), labels[ids], ids)


def first_images(dataset: Dataset, count: int) -> Bytes:
    """Return the first training images, uint8 [count, 3, H, W]. Image files give centre crops."""
    split, side = dataset.train, dataset.resolution
    if isinstance(split.images, np.ndarray):
        return split.images[:count]
    ids = split.ids[:count]
    images = np.empty((len(ids), side, side, 3), dtype=np.uint8)
    split.images.decoder(np.arange(len(ids)), ids, centre)(slice(0, len(ids)), images)
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2))


@functools.cache
def ffcv_trouble() -> str | None:
    """Return why FFCV cannot be used here, and the remedy; None if it can be used.

    It imports FFCV, which takes seconds.
    """
    try:
        importlib.import_module("harness.data.ffcv")
    except (ImportError, OSError) as error:
        return f"FFCV cannot be imported ({error}): {INSTALL_FFCV}"
    return None
