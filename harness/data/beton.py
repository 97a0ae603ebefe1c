"""A written data set: one `.beton` file for each part, and the manifest that says what they hold.

    DIR/manifest.json  train.beton  validation.beton  test.beton

The manifest is written last and checked whenever the set is opened: size of each file, SHA-256 of
its index (everything in it but the images), number of images, and the split.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from harness.data.catalog import MANIFEST, DatasetInfo
from harness.data.datasets import Split, check_counts, cut_as
from harness.data.ffcv import Beton
from harness.data.official import Integers
from harness.data.splits import split_hash
from harness.errors import UserError
from harness.schema import DatasetConfig
from harness.store.files import Damaged, read_json

FORMAT = 1
PARTS = ("train", "validation", "test")
AGAIN = "write it again with `python -m harness.data.write`"


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a written set.

    Raises:
        UserError: damaged, or of a later version.
    """
    path = folder / MANIFEST
    try:
        manifest = read_json(path)
        found = manifest["format"]
    except (OSError, Damaged, KeyError) as error:
        raise UserError(f"{path} cannot be read ({error}): {AGAIN}.") from error
    if found != FORMAT:
        raise UserError(f"{path} has format {found}, and this version reads {FORMAT}: {AGAIN}.")
    return manifest


def index_digest(path: Path, index_end: int, table_start: int) -> str:
    """SHA-256 of a file without its images: what comes before and after them."""
    sha = hashlib.sha256()
    with path.open("rb") as file:
        sha.update(file.read(index_end))
        file.seek(table_start)
        sha.update(file.read())
    return sha.hexdigest()


def _check_file(path: Path, facts: Mapping[str, Any]) -> None:
    if not path.is_file():
        raise UserError(f"{path} is not there, though the manifest beside it lists it: {AGAIN}.")
    size = path.stat().st_size
    if size != facts["bytes"]:
        raise UserError(
            f"{path} has {size:,} bytes where its manifest says {facts['bytes']:,}: it was "
            f"truncated or replaced; copy it again, or {AGAIN}."
        )
    if index_digest(path, facts["index_end"], facts["table_start"]) != facts["index_sha256"]:
        raise UserError(
            f"the index of {path} is not the one that its manifest describes: it was damaged or "
            f"replaced; copy it again, or {AGAIN}."
        )


def open_parts(
    folder: Path, config: DatasetConfig, info: DatasetInfo, cache: str
) -> tuple[Split, Split, Split]:
    """Train, validation and test of the set in `folder`, as `config` cuts them.

    Raises:
        UserError: another data set, another split, or a file that is absent, truncated, damaged.
    """
    manifest = read_manifest(folder)
    if manifest["dataset"] != info.name:
        raise UserError(f"{folder} holds the data set {manifest['dataset']}, not {info.name}.")
    official = manifest["official"]
    check_counts(info, official["train"], official["test"], official["classes"], folder)
    split = manifest["split"]
    asked = {"validation_size": config.validation_size, "split_seed": config.split_seed}
    if other := {key: split[key] for key, value in asked.items() if split[key] != value}:
        was = ", ".join(f"{key}={value}" for key, value in other.items())
        wants = ", ".join(f"{key}={asked[key]}" for key in other)
        raise UserError(
            f"{folder} was written with {was}, and dataset.{wants} is asked for: change the "
            "config, or write another folder with `python -m harness.data.write`."
        )
    for name in PARTS:
        _check_file(folder / f"{name}.beton", manifest["parts"][name])
    files = {
        name: Beton(folder / f"{name}.beton", "process" if cache == "process" else "page")
        for name in PARTS
    }
    if split_hash(*(files[name].ids for name in PARTS)) != split["hash"]:
        raise UserError(f"the files in {folder} hold another split than their manifest: {AGAIN}.")
    train_labels = _labels(official["train"], [files["train"], files["validation"]])
    test_labels = _labels(official["test"], [files["test"]])
    skipped: dict[bool, set[int]] = {True: set(), False: set()}
    for entry in manifest["skipped"]:  # they took part in the cut, and fell out of their part
        of_train = entry["part"] == "train"
        (train_labels if of_train else test_labels)[entry["id"]] = entry["label"]
        skipped[of_train].add(entry["id"])
    parts = []
    for name, ids in zip(PARTS, cut_as(config, train_labels, test_labels), strict=True):
        held = np.isin(ids, files[name].ids, assume_unique=True)
        if not skipped[name != "test"].issuperset(ids[~held].tolist()):
            raise UserError(f"{folder} was cut by other rules than today's: {AGAIN}.")
        ids = ids[held]
        images, labels = files[name].choose(ids)
        parts.append(Split(images, labels, ids))
    return parts[0], parts[1], parts[2]


def _labels(size: int, files: list[Beton]) -> Integers:
    """Labels of an official set by id, from the files that hold its parts."""
    labels = np.zeros(size, dtype=np.int64)
    for file in files:
        labels[file.ids] = file.labels
    return labels
