"""Write a data set to FFCV's `.beton` files, one for each split, and a manifest.

    python -m harness.data.write source=/data/ILSVRC check=true
    python -m harness.data.write dataset=imagenet source=/data/ILSVRC out=data/imagenet

`source` is a tree with train/<class>/* and val/<class>/*, or the data root of another data set.
With check=true nothing is written. The command then checks the classes and links of the tree, the
numbers of images (compared with those of `dataset`, if it is given), and the format and size of
every image. It does not decode them. Further arguments, with their defaults:

    validation_size=N         training images for validation; default: as in grids/dataset/NAME.yaml
    split_seed=0              seed of the cut between training and validation
    max_resolution=           pixels; larger images are shrunk until no side is longer
    jpeg_quality=90           quality of the images that are stored as JPEG
    compress_probability=     share stored as JPEG, the others raw; default: 1 for trees, else 0
    workers=                  threads; default: the cores that this process may use
    skip_bad=false            leave out images that do not decode

The manifest is written last. A folder without a manifest does not count as a data set.
"""

from __future__ import annotations

from harness.arguments import Option, parse_options
from harness.data.catalog import CATALOG, DatasetInfo, shown
from harness.data.manifest import PARTS, Settings
from harness.data.node import usable_cores
from harness.data.source import INSTALL_FFCV
from harness.data.tree import inspect_tree, scan_parts
from harness.data.writer import write_betons
from harness.errors import UserError, command, nearest
from harness.files import CannotWrite, user_path
from harness.paths import GRIDS
from harness.plain_yaml import plain, read_text
from harness.schema import DatasetConfig

OPTIONS = {
    "dataset": Option(example="imagenet"),
    "source": Option(),
    "out": Option(example="data/imagenet"),
    "check": Option(bool, default=False),
    "max_resolution": Option(int, low=1, high=65_535, example="500"),
    "jpeg_quality": Option(int, default=90, low=1, high=100, example="90"),
    "compress_probability": Option(float, low=0, high=1, example="0.5"),
    "workers": Option(int, low=1, high=1024, example="8"),
    "skip_bad": Option(bool, default=False),
    "validation_size": Option(int, low=1, example="50000"),
    "split_seed": Option(int, default=0, low=0),
}


def _default_validation_size(name: str) -> int | None:
    """Return `validation_size` of `grids/dataset/NAME.yaml`, if there is such a file."""
    path = GRIDS / "dataset" / f"{name}.yaml"
    if not path.is_file():
        return None
    content = plain(read_text(path, "dataset file"), f"the dataset file {path}")
    return content.get("validation_size") if isinstance(content, dict) else None


def _unknown(name: str, source: str | None) -> str:
    """Return the message for an unknown name. For a tree it has the row that the catalog needs."""
    message = f"no data set '{name}'{nearest(name, CATALOG)}."
    if source is None or not (user_path(source, "source") / "train").is_dir():
        return message
    train, test = scan_parts(user_path(source, "source"))
    return (
        f"{message} To make {shown(source)} one, add this row to _ROWS in "
        "harness/data/catalog.py:\n"
        f'    image_folder("{name}", num_classes={len(train.classes)}, '
        f"train_size={len(train.labels):_}, test_size={len(test.labels):_}),"
    )


def _check(source: str | None, info: DatasetInfo | None) -> int:
    """Print what is in the tree `source` and what is wrong with it; return the exit code."""
    if source is None:
        raise UserError("check=true looks at a tree of image files: add source=DIR.")
    problems, notes = inspect_tree(user_path(source, "source"), None, info)
    print("\n".join(notes))
    if problems:
        raise UserError("\n".join(problems))
    print(f"{shown(source)} is a tree of images that can be trained on.")
    return 0


def main(arguments: list[str]) -> int:
    """Write the data set that `arguments` describe; return the exit code."""
    options = parse_options(arguments, OPTIONS)
    source = options["source"]
    info = CATALOG.get(options["dataset"])
    if options["check"]:
        return _check(source, info)
    for key in ("dataset", "out"):
        if options[key] is None:
            example = f"for example {key}={OPTIONS[key].example}"
            raise UserError(f"{key} is missing: add {key}=VALUE, {example}")
    if info is None:
        raise UserError(_unknown(options["dataset"], source))
    size = options["validation_size"] or _default_validation_size(info.name)
    if size is None:
        raise UserError(
            f"there is no validation_size in grids/dataset/{info.name}.yaml, so the number of "
            "images for validation is unknown: add validation_size=N"
        )
    try:
        import cv2  # noqa: F401
        import ffcv  # noqa: F401
    except (ImportError, OSError) as error:
        raise UserError(
            f"writing .beton files needs FFCV, which cannot be imported ({error}): {INSTALL_FFCV}; "
            "or train from the image files with run.loader=imagefolder."
        ) from error
    compress = options["compress_probability"]
    if compress is None:  # decoding a small image costs more than reading its pixels
        compress = 1.0 if info.reader is None else 0.0
    config = DatasetConfig(name=info.name, validation_size=size, split_seed=options["split_seed"])
    settings = Settings(
        max_resolution=options["max_resolution"],
        jpeg_quality=options["jpeg_quality"],
        compress_probability=compress,
    )
    out, workers = user_path(options["out"], "out"), options["workers"] or usable_cores()
    try:
        manifest = write_betons(info, config, source, out, settings, workers, options["skip_bad"])
    except (OSError, CannotWrite) as error:  # the folder cannot be written, or the storage hangs
        raise UserError(
            f"{shown(out)} was not finished, and does not count as a data set: {error}"
        ) from error
    counts = ", ".join(f"{getattr(manifest.parts, name).count:,} {name}" for name in PARTS)
    print(f"{shown(out)}: {counts}; split {manifest.split.hash}")
    for entry in manifest.skipped:
        print(f"skipped {entry.image}: {entry.because}")
    return 0


if __name__ == "__main__":
    command(main, __doc__)
