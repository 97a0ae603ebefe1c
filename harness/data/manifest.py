"""The manifest of a data set in `.beton` files: the content of the files, and checks of a config.

    DIR/manifest.json  train.beton  validation.beton  test.beton

The manifest is written last. It is read without torch, NumPy or FFCV, so that a launch can report
mistakes that would stop its workers.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, Strict, ValidationError, model_validator

from harness.data.catalog import (
    MANIFEST,
    DatasetInfo,
    check_counts,
    describe_again,
    find_betons,
    info_of,
    shown,
)
from harness.errors import UserError
from harness.fields import Frozen, Names, PositiveInt
from harness.files import Damaged
from harness.schema import DatasetConfig
from harness.store.records import read_json

FORMAT: Literal[1] = 1
PARTS: tuple[Literal["train", "validation", "test"], ...] = ("train", "validation", "test")
WRITE_AGAIN = "write it again with `python -m harness.data.write`"

Count = Annotated[int, Field(ge=0)]


class Official(Frozen):
    """Numbers of images and classes of the official sets."""

    train: PositiveInt
    test: PositiveInt
    classes: PositiveInt


class Cut(Frozen):
    """How the official training set was cut, and the hash of the ids in the three parts."""

    validation_size: PositiveInt
    split_seed: Count
    hash: str


class Settings(Frozen):
    """How images are stored. `compress_probability` is the share of JPEGs; the others are raw."""

    max_resolution: PositiveInt | None  # pixels: larger images are shrunk until no side is longer
    jpeg_quality: Annotated[int, Field(ge=1, le=100)]
    compress_probability: Annotated[float, Field(ge=0.0, le=1.0)]


class File(Frozen):
    """One `.beton` file. The digest covers the file without its images (`index_digest`)."""

    count: Count
    bytes: PositiveInt
    index_end: PositiveInt
    table_start: PositiveInt
    index_sha256: str


class Files(Frozen):
    """The files of the three parts."""

    train: File
    validation: File
    test: File


class Skipped(Frozen):
    """An image of an official set that did not decode and was left out."""

    part: Literal["train", "test"]
    id: Count
    label: Count
    image: str
    because: str


class Manifest(Frozen):
    """The content of `manifest.json`."""

    format: Literal[1]
    dataset: str
    # digest of the tree that was written, of a user's own data set (`tree.files_digest`)
    source_files: str | None = Field(default=None, exclude_if=lambda digest: digest is None)
    official: Official
    classes: Names
    split: Cut
    settings: Settings
    parts: Files
    skipped: Annotated[tuple[Skipped, ...], Strict(False)]

    @model_validator(mode="after")
    def _ids_exist(self) -> Manifest:
        sizes = {"train": self.official.train, "test": self.official.test}
        for entry in self.skipped:
            if entry.id >= sizes[entry.part] or entry.label >= self.official.classes:
                raise ValueError(f"no {entry.part} image has id {entry.id}, label {entry.label}")
        return self

    @property
    def stored(self) -> str:
        """A text about changed pixels and left-out images, which is recorded with every result."""
        settings, words = self.settings, []
        if settings.max_resolution is not None:
            words.append(f"max_resolution={settings.max_resolution}")
        if settings.compress_probability:
            words.append(f"jpeg_quality={settings.jpeg_quality}")
        words.append(f"compress_probability={settings.compress_probability:g}")
        if self.skipped:
            ids = ",".join(sorted(f"{entry.part}{entry.id}" for entry in self.skipped))
            digest = hashlib.sha256(ids.encode()).hexdigest()[:8]
            words.append(f"left_out={len(self.skipped)}:{digest}")
        return " ".join(words)


def index_digest(path: Path, index_end: int, table_start: int) -> str:
    """Return the SHA-256 of a `.beton` file without its images.

    These are the bytes from `index_end` to `table_start`.
    """
    sha = hashlib.sha256()
    with path.open("rb") as file:
        sha.update(file.read(index_end))
        file.seek(table_start)
        sha.update(file.read())
    return sha.hexdigest()


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest in `folder`.

    Raises:
        UserError: it is missing, damaged, incomplete, or of another version of the format.
    """
    path = folder / MANIFEST
    try:
        content = read_json(path, follow_links=True)
    except (OSError, Damaged) as error:
        raise UserError(f"{shown(path)} cannot be read ({error}): {WRITE_AGAIN}.") from error
    if (version := content.get("format", FORMAT)) != FORMAT:
        raise UserError(
            f"{shown(path)} has format {version}, and this version reads {FORMAT}: {WRITE_AGAIN}."
        )
    try:
        return Manifest.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "the whole file"
        raise UserError(
            f"{shown(path)} is not a manifest of this version ({key}: {first['msg'].lower()}): "
            f"{WRITE_AGAIN}."
        ) from error


def default_config(config: DatasetConfig, data_root: str | None) -> DatasetConfig:
    """Return a config that reads the data set, to look at some of its images.

    If there are `.beton` files, the config has their split and a resolution that they allow.

    Raises:
        UserError: an unknown data set; or see `read_manifest`.
    """
    info = info_of(config)
    folder = find_betons(info, data_root)
    if info.reader is not None or folder is None:
        return config.model_copy(update={"validation_size": max(1, info.train_size // 10)})
    manifest = read_manifest(folder)
    largest = manifest.settings.max_resolution
    side = config.resolution or info.resolution
    return config.model_copy(
        update={
            "validation_size": manifest.split.validation_size,
            "split_seed": manifest.split.split_seed,
            "resolution": config.resolution if largest is None else min(largest, side),
        }
    )


def read_fitting(folder: Path, config: DatasetConfig, info: DatasetInfo) -> Manifest:
    """Return the manifest in `folder` if the set fits `config`.

    Raises:
        UserError: see `read_manifest`; or the folder has another data set or split, images that
            were shrunk below the config's resolution, or files of another size.
    """
    manifest = read_manifest(folder)
    if manifest.dataset != info.name:
        raise UserError(
            f"{shown(folder)} holds the data set {manifest.dataset}, not {info.name}: set "
            "run.data_root to another folder, or correct dataset.name."
        )
    official = manifest.official
    check_counts(info, official.train, official.test, official.classes, folder)
    if info.content is not None and manifest.source_files != info.content.files:
        raise UserError(
            f"{shown(folder)} was written from other images than those that the file of the data "
            f"set {info.name} states: {WRITE_AGAIN}{describe_again(info)}."
        )
    split = manifest.split
    differing = [
        key
        for key in ("validation_size", "split_seed")
        if getattr(split, key) != getattr(config, key)
    ]
    if differing:
        written = ", ".join(f"{key}={getattr(split, key)}" for key in differing)
        requested = ", ".join(f"{key}={getattr(config, key)}" for key in differing)
        raise UserError(
            f"{shown(folder)} was written with {written}, and the config has dataset.{requested}: "
            "change the config, or write another folder with `python -m harness.data.write`."
        )
    largest, side = manifest.settings.max_resolution, config.resolution or info.resolution
    if largest is not None and largest < side:
        raise UserError(
            f"{shown(folder)} was written with max_resolution={largest}, and the config needs "
            f"images of {side} pixels: set dataset.resolution to {largest} or less, or write "
            "another folder with a larger max_resolution."
        )
    for part in PARTS:
        _check_size(folder / f"{part}.beton", getattr(manifest.parts, part).bytes)
    return manifest


def _check_size(path: Path, size: int) -> None:
    """Raise `UserError` unless the file has the size that its manifest states."""
    try:
        actual = path.stat().st_size
    except OSError as error:
        raise UserError(
            f"{shown(path)} cannot be read ({error.strerror}), though the manifest beside it lists "
            f"it: {WRITE_AGAIN}."
        ) from error
    if actual != size:
        raise UserError(
            f"{shown(path)} has {actual:,} bytes, and its manifest states {size:,}: it was "
            f"truncated or replaced; copy it again, or {WRITE_AGAIN}."
        )
