"""Open a written data set: its files against their manifest, and the parts that a config cuts.

Checked whenever a set is opened: size of each file, SHA-256 of its index (everything in it but the
images), number of images, and the split.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from harness.data.catalog import DatasetInfo
from harness.data.datasets import Split, cut_as
from harness.data.ffcv import Beton, require_memory
from harness.data.manifest import AGAIN, PARTS, File, read_fitting
from harness.data.official import Integers
from harness.data.splits import split_hash
from harness.errors import UserError
from harness.schema import DatasetConfig


def index_digest(path: Path, index_end: int, table_start: int) -> str:
    """SHA-256 of a file without its images: what comes before and after them."""
    sha = hashlib.sha256()
    with path.open("rb") as file:
        sha.update(file.read(index_end))
        file.seek(table_start)
        sha.update(file.read())
    return sha.hexdigest()


def _check_file(path: Path, said: File) -> None:
    if not path.is_file():
        raise UserError(f"{path} is not there, though the manifest beside it lists it: {AGAIN}.")
    size = path.stat().st_size
    if size != said.bytes:
        raise UserError(
            f"{path} has {size:,} bytes where its manifest says {said.bytes:,}: it was "
            f"truncated or replaced; copy it again, or {AGAIN}."
        )
    if index_digest(path, said.index_end, said.table_start) != said.index_sha256:
        raise UserError(
            f"the index of {path} is not the one that its manifest describes: it was damaged or "
            f"replaced; copy it again, or {AGAIN}."
        )


def open_parts(
    folder: Path, config: DatasetConfig, info: DatasetInfo, cache: str
) -> tuple[tuple[Split, Split, Split], str]:
    """Train, validation and test of the set in `folder`, as `config` cuts them; how it was stored.

    Raises:
        UserError: another data set, another split, images that are too small, a file that is
            absent, truncated or damaged, or a process cache that does not fit.
    """
    manifest = read_fitting(folder, config, info)
    paths = {name: folder / f"{name}.beton" for name in PARTS}
    for name, path in paths.items():
        _check_file(path, getattr(manifest.parts, name))
    if cache == "process":
        require_memory(paths.values())
    files = {
        name: Beton(path, "process" if cache == "process" else "page")
        for name, path in paths.items()
    }
    if split_hash(*(files[name].ids for name in PARTS)) != manifest.split.hash:
        raise UserError(f"the files in {folder} hold another split than their manifest: {AGAIN}.")
    train_labels = _labels(manifest.official.train, [files["train"], files["validation"]])
    test_labels = _labels(manifest.official.test, [files["test"]])
    skipped: dict[bool, set[int]] = {True: set(), False: set()}
    for entry in manifest.skipped:  # they took part in the cut, and fell out of their part
        of_train = entry.part == "train"
        (train_labels if of_train else test_labels)[entry.id] = entry.label
        skipped[of_train].add(entry.id)
    parts = []
    for name, ids in zip(PARTS, cut_as(config, train_labels, test_labels), strict=True):
        held = np.isin(ids, files[name].ids, assume_unique=True)
        if not skipped[name != "test"].issuperset(ids[~held].tolist()):
            raise UserError(f"{folder} was cut by other rules than today's: {AGAIN}.")
        ids = ids[held]
        images, labels = files[name].choose(ids)
        parts.append(Split(images, labels, ids))
    return (parts[0], parts[1], parts[2]), manifest.stored


def _labels(size: int, files: list[Beton]) -> Integers:
    """Labels of an official set by id, from the files that hold its parts."""
    labels = np.zeros(size, dtype=np.int64)
    for file in files:
        labels[file.ids] = file.labels
    return labels
