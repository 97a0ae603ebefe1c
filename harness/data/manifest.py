"""The manifest of a written data set: what its `.beton` files hold, and whether a config fits.

    DIR/manifest.json  train.beton  validation.beton  test.beton

It is written last, and read without torch, NumPy or FFCV, so that a launch can say beforehand what
its workers would find out.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, Strict, ValidationError, model_validator

from harness.data.catalog import MANIFEST, DatasetInfo, check_counts
from harness.errors import UserError
from harness.files import Damaged, read_json
from harness.schema import DatasetConfig, Frozen, Names, PositiveInt

FORMAT: Literal[1] = 1
PARTS: tuple[Literal["train", "validation", "test"], ...] = ("train", "validation", "test")
AGAIN = "write it again with `python -m harness.data.write`"
ORIGINAL = "original"
"""What `stored` is for images that no writer has touched."""

Count = Annotated[int, Field(ge=0)]


class Official(Frozen):
    """Numbers of images and classes of the official sets."""

    train: PositiveInt
    test: PositiveInt
    classes: PositiveInt


class Cut(Frozen):
    """How the official training set was cut, and the hash of what the three parts hold."""

    validation_size: PositiveInt
    split_seed: Count
    hash: str


class Settings(Frozen):
    """How images are stored. `compress_probability` of them are JPEGs, the others are raw."""

    max_resolution: PositiveInt | None  # pixels: larger images are shrunk until no side is longer
    jpeg_quality: Annotated[int, Field(ge=1, le=100)]
    compress_probability: Annotated[float, Field(ge=0.0, le=1.0)]


class File(Frozen):
    """One `.beton` file; the digest is of all but its images (`beton.index_digest`)."""

    count: Count
    bytes: PositiveInt
    index_end: PositiveInt
    table_start: PositiveInt
    index_sha256: str


class Files(Frozen):
    """The three parts."""

    train: File
    validation: File
    test: File


class Skipped(Frozen):
    """An image of the official training or test set that did not decode and was left out."""

    part: Literal["train", "test"]
    id: Count
    label: Count
    image: str
    because: str


class Manifest(Frozen):
    """Everything that `manifest.json` says."""

    format: Literal[1]
    dataset: str
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
        """What was done to the pixels, and which images are absent: recorded with every result."""
        how = self.settings
        words = [] if how.max_resolution is None else [f"max_resolution={how.max_resolution}"]
        if how.compress_probability:
            words.append(f"jpeg_quality={how.jpeg_quality}")
        words.append(f"compress_probability={how.compress_probability:g}")
        if self.skipped:
            ids = ",".join(sorted(f"{entry.part}{entry.id}" for entry in self.skipped))
            digest = hashlib.sha256(ids.encode()).hexdigest()[:8]
            words.append(f"left_out={len(self.skipped)}:{digest}")
        return " ".join(words)


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a written set.

    Raises:
        UserError: damaged, incomplete, or of a later version.
    """
    path = folder / MANIFEST
    try:
        said = read_json(path)
    except (OSError, Damaged) as error:
        raise UserError(f"{path} cannot be read ({error}): {AGAIN}.") from error
    if (found := said.get("format", FORMAT)) != FORMAT:
        raise UserError(f"{path} has format {found}, and this version reads {FORMAT}: {AGAIN}.")
    try:
        return Manifest.model_validate(said)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "all of it"
        raise UserError(
            f"{path} is not what the writer leaves ({place}: {first['msg'].lower()}): {AGAIN}."
        ) from error


def read_fitting(folder: Path, config: DatasetConfig, info: DatasetInfo) -> Manifest:
    """The manifest of the set in `folder`, which holds what `config` asks for.

    Raises:
        UserError: see `read_manifest`; another data set or split, or images that were shrunk to
            less than the config's resolution.
    """
    manifest = read_manifest(folder)
    if manifest.dataset != info.name:
        raise UserError(f"{folder} holds the data set {manifest.dataset}, not {info.name}.")
    official = manifest.official
    check_counts(info, official.train, official.test, official.classes, folder)
    asked = {"validation_size": config.validation_size, "split_seed": config.split_seed}
    held = {key: getattr(manifest.split, key) for key in asked}
    if other := [key for key in asked if held[key] != asked[key]]:
        was = ", ".join(f"{key}={held[key]}" for key in other)
        wants = ", ".join(f"{key}={asked[key]}" for key in other)
        raise UserError(
            f"{folder} was written with {was}, and dataset.{wants} is asked for: change the "
            "config, or write another folder with `python -m harness.data.write`."
        )
    most, side = manifest.settings.max_resolution, config.resolution or info.resolution
    if most is not None and most < side:
        raise UserError(
            f"{folder} was written with max_resolution={most}, and images of {side} pixels are "
            f"asked for: set dataset.resolution to {most} or less, or write another folder with a "
            "larger max_resolution."
        )
    return manifest
