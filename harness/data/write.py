"""Write a data set to FFCV's `.beton` files, one for each split, and a manifest.

    python -m harness.data.write source=/data/ILSVRC check=true
    python -m harness.data.write dataset=imagenet source=/data/ILSVRC out=data/imagenet

`dataset` is the name of a shipped data set, or the file of your own. `source` is a tree with
train/<class>/* and val/<class>/*, or the data root of another data set.
With check=true nothing is written. The command then checks the classes and links of the tree, the
numbers of images (compared with those of `dataset`, if it is given), and the format and size of
every image. It does not decode them. Further arguments, with their defaults:

    validation_size=N         training images for validation; default: as in its file
    split_seed=N              seed of the cut between training and validation; default: likewise
    max_resolution=           pixels; larger images are shrunk until no side is longer
    jpeg_quality=90           quality of the images that are stored as JPEG
    compress_probability=     share stored as JPEG, the others raw; default: 1 for trees, else 0
    workers=                  threads; default: the cores that this process may use
    skip_bad=false            leave out images that do not decode

The manifest is written last. A folder without a manifest does not count as a data set.
"""

from __future__ import annotations

from harness.arguments import Option, parse_options
from harness.data.catalog import DatasetInfo, info_of, shown
from harness.data.dataset_file import read_dataset
from harness.data.manifest import PARTS, Settings
from harness.data.node import usable_cores
from harness.data.source import INSTALL_FFCV
from harness.data.tree import inspect_tree
from harness.data.writer import write_betons
from harness.errors import UserError, command
from harness.files import CannotWrite, user_path

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
    "split_seed": Option(int, low=0, example="1"),
}


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
    config = None if options["dataset"] is None else read_dataset(options["dataset"])
    info = None if config is None else info_of(config)
    if options["check"]:
        return _check(source, info)
    for key in ("dataset", "out"):
        if options[key] is None:
            example = f"for example {key}={OPTIONS[key].example}"
            raise UserError(f"{key} is missing: add {key}=VALUE, {example}")
    assert config is not None
    assert info is not None
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
    size = options["validation_size"] or config.validation_size
    seed = config.split_seed if options["split_seed"] is None else options["split_seed"]
    cut = {"validation_size": size, "split_seed": seed}
    config = config.model_copy(update={**cut, "train_size": None, "test_size": None})
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
