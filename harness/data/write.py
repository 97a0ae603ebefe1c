"""Write a data set to FFCV's `.beton` files, one for each part, with a manifest that is checked.

    python -m harness.data.write dataset=imagenet source=/data/ILSVRC out=data/imagenet

`source` is a tree with train/<class>/* and val/<class>/*, or the data root of another data set.
Further words, with their defaults:

    validation_size=N         training images for validation; default: as in grids/dataset/NAME.yaml
    split_seed=0              seed of the cut between training and validation
    max_resolution=           pixels; larger images are shrunk until no side is longer
    jpeg_quality=90           quality of the images that are stored as JPEG
    compress_probability=     share stored as JPEG, the others raw; default: 1 for trees, else 0
    workers=                  threads; default: the cores that this process may use
    skip_bad=false            leave out images that do not decode

The files do not count as a data set until the manifest is there, which is written last.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from harness.data.catalog import CATALOG
from harness.data.imagefolder import scan_parts
from harness.data.manifest import PARTS, Settings
from harness.data.node import usable_cores
from harness.data.source import INSTALL_FFCV
from harness.data.writer import write_betons
from harness.errors import UserError, command, nearest
from harness.files import CannotWrite
from harness.imports import import_ffcv
from harness.paths import GRIDS
from harness.schema import DatasetConfig

USAGE = "usage: python -m harness.data.write dataset=NAME source=DIR out=DIR [KEY=VALUE ...]"


def _default_validation_size(name: str) -> int | None:
    """Return `validation_size` of `grids/dataset/NAME.yaml`, if there is such a file."""
    import yaml

    path = GRIDS / "dataset" / f"{name}.yaml"
    return yaml.safe_load(path.read_text())["validation_size"] if path.is_file() else None


def _unknown(name: str, source: str | None) -> str:
    """Return the message for an unknown name; for a tree, with the row that the catalog needs."""
    message = f"no data set '{name}'{nearest(name, CATALOG)}."
    if source is None or not (Path(source).expanduser() / "train").is_dir():
        return message
    train, test = scan_parts(Path(source).expanduser())
    return (
        f"{message} To make {source} one, add this row to _ROWS in harness/data/catalog.py:\n"
        f'    image_folder("{name}", num_classes={len(train.classes)}, '
        f"train_size={len(train.labels):_}, test_size={len(test.labels):_}),"
    )


@dataclass(frozen=True)
class _Words:
    """The command's words, with what they are if they are not said."""

    dataset: str = ""
    source: str | None = None
    out: str = ""
    max_resolution: int | None = None
    jpeg_quality: int = 90
    compress_probability: float | None = None
    workers: int | None = None
    skip_bad: bool = False
    validation_size: int | None = None
    split_seed: int = 0


def _words(arguments: list[str]) -> _Words:
    kinds = {f.name: str(f.type).partition(" ")[0] for f in fields(_Words)}
    said: dict[str, Any] = {}
    for text in arguments:
        key, equals, value = text.partition("=")
        if not equals or key not in kinds:
            raise UserError(
                f"'{text}' is no KEY=VALUE of this command{nearest(key, kinds)}. {USAGE}"
            )
        try:
            if kinds[key] == "bool":
                said[key] = {"true": True, "false": False}[value]
            else:
                said[key] = {"int": int, "float": float, "str": str}[kinds[key]](value)
        except (ValueError, KeyError):
            raise UserError(f"{key}={value} is no {kinds[key]}.") from None
    words = _Words(**said)
    if not words.dataset or not words.out:
        raise UserError(USAGE)
    for key, low, high in (
        ("max_resolution", 1, 65_535),
        ("jpeg_quality", 1, 100),
        ("compress_probability", 0.0, 1.0),
        ("workers", 1, 1024),
        ("validation_size", 1, None),
        ("split_seed", 0, None),
    ):
        value = getattr(words, key)
        if value is not None and not low <= value <= (high or value):
            raise UserError(f"{key}={value} is outside {low} to {high or 'any number'}.")
    return words


def main(arguments: list[str]) -> int:
    """The command; see the module's docstring."""
    if arguments[:1] in (["--help"], ["-h"]):
        print(__doc__)
        return 0
    words = _words(arguments)
    if (info := CATALOG.get(words.dataset)) is None:
        raise UserError(_unknown(words.dataset, words.source))
    size = words.validation_size or _default_validation_size(info.name)
    if size is None:
        raise UserError(
            f"validation_size is missing, and there is no grids/dataset/{info.name}.yaml to take "
            f"it from: add validation_size=N, a number of training images. {USAGE}"
        )
    try:
        import cv2  # noqa: F401

        import_ffcv()
    except (ImportError, OSError) as error:
        raise UserError(
            f"writing .beton files needs FFCV, which cannot be imported ({error}): {INSTALL_FFCV}; "
            "or train from the image files with run.loader=imagefolder."
        ) from error
    compress = words.compress_probability
    if compress is None:  # small images: decoding costs more than reading the pixels
        compress = 1.0 if info.reader is None else 0.0
    config = DatasetConfig(name=info.name, validation_size=size, split_seed=words.split_seed)
    settings = Settings(
        max_resolution=words.max_resolution,
        jpeg_quality=words.jpeg_quality,
        compress_probability=compress,
    )
    out, workers = Path(words.out).expanduser(), words.workers or usable_cores()
    try:
        manifest = write_betons(info, config, words.source, out, settings, workers, words.skip_bad)
    except (OSError, CannotWrite) as error:  # a folder that cannot be written, storage that hangs
        raise UserError(
            f"{out} was not finished, and does not count as a data set: {error}"
        ) from error
    counts = ", ".join(f"{getattr(manifest.parts, name).count:,} {name}" for name in PARTS)
    print(f"{words.out}: {counts}; split {manifest.split.hash}")
    for entry in manifest.skipped:
        print(f"skipped {entry.image}: {entry.because}")
    return 0


if __name__ == "__main__":
    command(main)
