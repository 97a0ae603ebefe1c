"""Open the `.beton` files of a data set: check them against their manifest, and cut the splits.

The checks compare the size of each file, the SHA-256 of its index (everything but the images), the
numbers of images and the split. They run whenever a data set is opened.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from harness.data.catalog import DatasetInfo, shown
from harness.data.ffcv import BetonImages, require_memory
from harness.data.manifest import PARTS, WRITE_AGAIN, File, Manifest, index_digest, read_fitting
from harness.data.splits import cut, split_hash
from harness.data.types import Integers, Split
from harness.errors import UserError
from harness.schema import DatasetConfig


def beton_splits(
    folder: Path, config: DatasetConfig, info: DatasetInfo, cache: str
) -> tuple[list[Split], str]:
    """Return the splits of the `.beton` files in `folder` as `config` cuts them, and `stored`.

    Raises:
        UserError: another data set, another split, images that are too small, a file that is
            missing, truncated or damaged, or a process cache that does not fit in memory.
    """
    manifest = read_fitting(folder, config, info)
    paths = {name: folder / f"{name}.beton" for name in PARTS}
    for name, path in paths.items():
        entry: File = getattr(manifest.parts, name)
        if index_digest(path, entry.index_end, entry.table_start) != entry.index_sha256:
            raise UserError(
                f"the index of {shown(path)} is not the one that its manifest describes: it was "
                f"damaged or replaced; copy it again, or {WRITE_AGAIN}."
            )
    if cache == "process":
        require_memory(paths.values())
    files: dict[str, BetonImages] = {
        name: BetonImages(path, "process" if cache == "process" else "page")
        for name, path in paths.items()
    }
    if split_hash(*(files[name].ids for name in PARTS)) != manifest.split.hash:
        raise UserError(
            f"the files in {shown(folder)} hold another split than their manifest: {WRITE_AGAIN}."
        )
    return _cut(folder, config, manifest, files), manifest.stored


def _cut(
    folder: Path, config: DatasetConfig, manifest: Manifest, files: dict[str, BetonImages]
) -> list[Split]:
    """Return the three splits as `config` cuts them, without the images that the writer skipped."""
    train_labels = _labels(manifest.official.train, [files["train"], files["validation"]])
    test_labels = _labels(manifest.official.test, [files["test"]])
    # Skipped images take part in the cut, because they did when the files were written.
    skipped: dict[str, set[int]] = {"train": set(), "test": set()}
    for entry in manifest.skipped:
        labels = train_labels if entry.part == "train" else test_labels
        labels[entry.id] = entry.label
        skipped[entry.part].add(entry.id)
    splits = []
    for name, ids in zip(PARTS, cut(config, train_labels, test_labels), strict=True):
        in_file = np.isin(ids, files[name].ids, assume_unique=True)
        if not skipped["test" if name == "test" else "train"].issuperset(ids[~in_file].tolist()):
            raise UserError(
                f"{shown(folder)} was cut by other rules than those of this version: {WRITE_AGAIN}."
            )
        ids = ids[in_file]
        images, labels = files[name].select(ids)
        splits.append(Split(images, labels, ids))
    return splits


def _labels(size: int, files: list[BetonImages]) -> Integers:
    """Return the labels of an official set by id, from the files that hold its parts."""
    labels = np.zeros(size, dtype=np.int64)
    for file in files:
        labels[file.ids] = file.labels
    return labels
