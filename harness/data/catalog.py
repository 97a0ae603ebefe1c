"""The data sets that a grid can name: their facts, where their files are, and checks of a config.

The facts of a shipped set are in `grids/dataset/NAME.yaml`, and those of a user's own set in the
user's file (`dataset_file.py`). This module imports neither torch nor NumPy, so that a plan can be
checked on a machine that cannot train. `docs/datasets.md` shows how to add a data set.
"""

from __future__ import annotations

import gzip
import importlib.util
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.dataset_schema import DatasetConfig, DatasetContent
from harness.errors import UserError, nearest, printable
from harness.files import user_path
from harness.paths import GRIDS
from harness.plain_yaml import plain, read_text

DESCRIBE = "`python -m harness.data.describe dataset={}`"
FOLDER_CROPS = (0.08, 1.0)  # of image files, unless a config chooses others: torchvision's default


@dataclass(frozen=True)
class Places:
    """The folders of a tree: of the training images, and of the test images.

    They are below the folder of the data set, or absolute. Without a folder of test images,
    `test_share` of the training images are the test set.
    """

    train: str = "train"
    test: str | None = "val"
    test_share: float = 0.2

    def folders(self, root: Path) -> list[Path]:
        """Return the folders of the tree whose data set has the folder `root`."""
        parts = [self.train] if self.test is None else [self.train, self.test]
        return [root / user_path(part, "dataset.train") for part in parts]

    def __str__(self) -> str:
        parts = [self.train] if self.test is None else [self.train, self.test]
        return " and ".join(part if part.startswith(("/", "~")) else f"{part}/" for part in parts)


TRAIN_VAL = Places()


@dataclass(frozen=True)
class DatasetInfo:
    """One data set. Mean and standard deviation are those of the official training images.

    A set with a `reader` has images of one size and is read into memory as a whole. Its images are
    in a Python `package`, or in `files`. These lie in `folder` under a data root (torchvision's
    layout) or in `system_folder`, and each may be gzipped. A set without a reader consists of image
    files of any size, in a tree with `places` or written as `.beton` files.
    """

    name: str
    reader: str | None  # harness/data/<reader>.py has a function read(folder, info) -> Official
    num_classes: int
    resolution: int  # pixels a side
    mean: tuple[float, ...]  # per channel, of images scaled to [0, 1]
    std: tuple[float, ...]
    train_size: int  # images in the official training set
    test_size: int
    remedy: str  # what to do when the files are missing: the end of a sentence
    folder: str | None = None
    files: tuple[str, ...] = ()
    system_folder: str | None = None  # where a package of the Linux distribution puts the files
    package: str | None = None  # the importable package that contains the images
    torchvision: str | None = None  # the class of torchvision that has the download's address
    channels: int = 3  # of the model's input; grey images are repeated
    crop_scale: tuple[float, float] | None = None  # image files only: see DatasetConfig
    places: Places = TRAIN_VAL
    content: DatasetContent | None = None  # a user's own set: has digests of the files


def shown(path: Path | str) -> str:
    """Return a path as printable text: bytes that are not UTF-8 become `\\xe9`, line ends `\\n`."""
    return printable(str(path), kept="")


def _or_download(name: str) -> str:
    return f"download it with `python -m harness.data.download {name}` or set run.data_root"


_READERS: dict[str, dict[str, Any]] = {
    "imagenet": {
        "reader": None,
        "remedy": "put its images there as train/<class>/* and val/<class>/*, or write it with "
        "`python -m harness.data.write dataset=imagenet source=DIR out=ROOT/imagenet` and set "
        "run.data_root=ROOT",
        "folder": "imagenet",
        "crop_scale": FOLDER_CROPS,
    },
    "fashion_mnist": {
        "reader": "fashion_mnist",
        "remedy": "install the Debian package dataset-fashion-mnist, "
        + _or_download("fashion_mnist")
        + " to a folder that holds FashionMNIST/raw",
        "folder": "FashionMNIST/raw",
        "files": (
            "train-images-idx3-ubyte",
            "train-labels-idx1-ubyte",
            "t10k-images-idx3-ubyte",
            "t10k-labels-idx1-ubyte",
        ),
        "system_folder": "/usr/share/datasets/fashion-mnist",
        "torchvision": "FashionMNIST",
    },
    "cifar10": {
        "reader": "cifar",
        "remedy": _or_download("cifar10") + " to a folder that holds cifar-10-batches-py",
        "folder": "cifar-10-batches-py",
        "files": (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"),
        "torchvision": "CIFAR10",
    },
    "cifar100": {
        "reader": "cifar",
        "remedy": _or_download("cifar100") + " to a folder that holds cifar-100-python",
        "folder": "cifar-100-python",
        "files": ("train", "test"),
        "torchvision": "CIFAR100",
    },
    "digits": {
        "reader": "digits",
        "remedy": "install scikit-learn, which contains the images",
        "package": "sklearn",
    },
}
"""How the files of the shipped sets are found and read, by name."""


def _facts(name: str, content: DatasetContent) -> dict[str, Any]:
    return {
        "name": name,
        "num_classes": content.classes,
        "resolution": content.resolution,
        "mean": content.mean,
        "std": content.std,
        "train_size": content.train_images,
        "test_size": content.test_images,
    }


def _shipped(name: str) -> DatasetInfo:
    """Return the facts of a shipped data set, from its file in `grids/dataset/`."""
    path = GRIDS / "dataset" / f"{name}.yaml"
    file: Any = plain(read_text(path, "dataset file"), f"the dataset file {path}")
    content = DatasetContent.model_validate(file["content"])
    return DatasetInfo(**_facts(name, content), **_READERS[name])


CATALOG: dict[str, DatasetInfo] = {name: _shipped(name) for name in _READERS}
"""The shipped data sets by name. `find_info` also returns the facts of a user's own set."""
# Pixels a side. For images up to this size, and values within the bounds of the ops, Pillow maps
# coordinates in 16.16 fixed point (`ImagingTransformAffine` in Geometry.c of Pillow 13). So does
# `harness/augment`.
LARGEST_SIDE = 8192
MANIFEST = "manifest.json"  # written last, so a set of `.beton` files with it is complete


def data_folders(data_root: str | None, name: str) -> list[Path]:
    """Return the folder `name` in the data root and in `data/` of the working directory."""
    roots = (data_root, "data")
    return [user_path(root, "data_root") / name for root in roots if root is not None]


def find_betons(info: DatasetInfo, data_root: str | None) -> Path | None:
    """Return the first folder `<root>/<name>` with finished `.beton` files of this data set."""
    folders = data_folders(data_root, info.name)
    return next((folder for folder in folders if (folder / MANIFEST).is_file()), None)


def find_tree(info: DatasetInfo, data_root: str | None) -> Path | None:
    """Return the first folder `<root>/<name>` with the image files of this data set."""
    for folder in data_folders(data_root, info.name):
        if all(part.is_dir() for part in info.places.folders(folder)):
            return folder
    return None


def find_info(config: DatasetConfig) -> DatasetInfo | None:
    """Return the facts of a shipped data set or of a user's own, or None for an unknown name."""
    if config.content is None:
        return CATALOG.get(config.name)
    name, train = config.name, config.train or "train"
    places = Places(train, config.test, config.test_share or Places.test_share)
    return DatasetInfo(
        **_facts(name, config.content),
        reader=None,
        remedy=f"put its images there, or name their folders with dataset.train and dataset.test, "
        f"or set run.data_root to the folder that holds {name}/",
        folder=name,
        crop_scale=FOLDER_CROPS,
        places=places,
        content=config.content,
    )


def info_of(config: DatasetConfig) -> DatasetInfo:
    """Return the facts of the data set of a config. Raises UserError for an unknown one."""
    if (info := find_info(config)) is None:
        raise UserError(_unknown(config))
    return info


def _unknown(config: DatasetConfig) -> str:
    if config.images is not None:
        return (
            f"dataset.content: the file of the data set {config.name} does not say what its images "
            f"are: run {DESCRIBE.format('FILE')} once, which writes that into the file."
        )
    return (
        f"dataset.name: no data set '{config.name}'{nearest(config.name, CATALOG)}; one of your "
        "own is named by its file, dataset=path/to/pets.yaml."
    )


def search_folders(info: DatasetInfo, data_root: str | None) -> list[Path]:
    """Return the folders that may hold the files: data root, `data/`, the distribution's folder."""
    if info.folder is None:
        return []
    system = [Path(info.system_folder)] if info.system_folder else []
    return data_folders(data_root, info.folder) + system


def find_file(folder: Path, name: str) -> Path | None:
    """Return the path of the file `name` or `name`.gz in `folder`; None if there is neither."""
    candidates = (folder / name, folder / f"{name}.gz")
    return next((path for path in candidates if path.is_file()), None)


def read_file(folder: Path, name: str) -> tuple[Path, bytes]:
    """Return the path of `name` in `folder` (see `find_file`), and its decompressed content.

    Raises `UserError` for a file that is missing or cannot be read or decompressed.
    """
    path = find_file(folder, name) or folder / name
    try:
        content = path.read_bytes()
        return path, gzip.decompress(content) if path.suffix == ".gz" else content
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{shown(path)} cannot be read ({error}); replace the file.") from error


def find(info: DatasetInfo, data_root: str | None) -> Path | None:
    """Return the first folder that holds all files of a data set, or None."""
    if info.reader is None:
        return find_betons(info, data_root) or find_tree(info, data_root)
    for folder in search_folders(info, data_root):
        if all(find_file(folder, name) for name in info.files):
            return folder
    return None


def missing(info: DatasetInfo, data_root: str | None) -> str | None:
    """Return a sentence about missing files: which, where they were searched, and the remedy.

    Return None if nothing is missing.
    """
    if info.package is not None:
        if importlib.util.find_spec(info.package) is not None:
            return None
        return f"the data set {info.name} needs the package {info.package}: {info.remedy}."
    if find(info, data_root) is not None:
        return None
    folders = search_folders(info, data_root)
    if info.reader is None:
        return (
            f"the data set {info.name} is not there; neither {MANIFEST} nor {info.places} are in "
            f"{'; '.join(map(shown, folders))}: {info.remedy}."
        )
    searched = "; ".join(_searched(folder, info) for folder in folders)
    return (
        f"the files of the data set {info.name} are not there; looked in {searched}: {info.remedy}."
    )


def _searched(folder: Path, info: DatasetInfo) -> str:
    if not folder.is_dir():
        return f"{shown(folder)} (no such folder)"
    lacking = [name for name in info.files if find_file(folder, name) is None]
    return f"{shown(folder)} (lacks {', '.join(lacking)})"


def _wrong_sides(config: DatasetConfig, info: DatasetInfo) -> list[str]:
    """Return sentences about wrong values of the keys that only sets of image files have."""
    if info.crop_scale is None:
        return [
            f"dataset.{key}: the images of {info.name} are used as they are, "
            f"{info.resolution}x{info.resolution}; set dataset.{key}=null."
            for key in ("resolution", "crop_scale", "start_resolution")
            if getattr(config, key) is not None
        ]
    problems = []
    full = config.resolution or info.resolution
    if full > LARGEST_SIDE:
        problems.append(
            f"dataset.resolution: {full} is more than the {LARGEST_SIDE} pixels a side up to which "
            "images are augmented."
        )
    if config.start_resolution is not None and config.start_resolution > full:
        problems.append(
            f"dataset.start_resolution: {config.start_resolution} is more than the {full} pixels "
            "of the last epochs; choose a smaller one, or a larger dataset.resolution."
        )
    if config.crop_scale is not None and config.crop_scale[1] == 0.0:
        problems.append(
            "dataset.crop_scale: its end is 0, so that every crop would be empty; [0.08, 1] is "
            "common."
        )
    return problems


def misfits(config: DatasetConfig) -> list[str]:
    """Return sentences about an unknown name and about sizes that do not fit the data set."""
    info = find_info(config)
    if info is None:
        return [_unknown(config)]
    if info.content is not None and config.name in CATALOG:
        return [
            f"dataset.name: {config.name} is the name of a shipped data set, and this file "
            "describes another one: choose another name."
        ]
    problems = _wrong_sides(config, info)
    remaining = info.train_size - config.validation_size
    if remaining < 1:
        problems.append(
            f"dataset.validation_size: {config.validation_size} leaves nothing to train on, "
            f"because {info.name} has {info.train_size} training images."
        )
    elif config.train_size is not None and config.train_size > remaining:
        problems.append(
            f"dataset.train_size: {config.train_size} is more than the {remaining} training images "
            f"of {info.name} that validation_size={config.validation_size} leaves."
        )
    if config.test_size is not None and config.test_size > info.test_size:
        problems.append(
            f"dataset.test_size: {config.test_size} is more than the {info.test_size} test images "
            f"of {info.name}."
        )
    return problems


def unsuited(info: DatasetInfo, loader: str) -> str | None:
    """Return a sentence if `run.loader` cannot read any form of a data set; None if it can."""
    if loader == "resident" and info.reader is None:
        return (
            f"resident holds a whole data set in memory, and the images of {info.name} have "
            "different sizes: use ffcv, imagefolder or auto"
        )
    if loader == "imagefolder" and info.reader is not None:
        return (
            f"imagefolder reads a tree of image files, and {info.name} is not one: use resident or "
            "auto"
        )
    return None


def training_sides(config: DatasetConfig) -> tuple[int, ...]:
    """Return the sides that training images have, in pixels, the final one last.

    With `start_resolution` they grow in multiples of 32 (`crops.side_at`).
    """
    last = config.resolution or info_of(config).resolution
    first = config.start_resolution or last
    between = range(32 * (first // 32 + 1), last, 32)
    return tuple(dict.fromkeys((first, *between, last)))


def check_counts(info: DatasetInfo, train: int, test: int, classes: int, place: Path) -> None:
    """Raise `UserError` unless the counts of the files in `place` are those of the data set."""
    expected, actual = (info.train_size, info.test_size, info.num_classes), (train, test, classes)
    if expected != actual:
        template = "{:,} training images, {:,} test images and {:,} classes"
        raise UserError(
            f"{info.name} should have {template.format(*expected)}, and {shown(place)} holds "
            f"{template.format(*actual)}; complete it{describe_again(info)}."
        )


def describe_again(info: DatasetInfo) -> str:
    """Return the end of a remedy for files that differ from the description of a user's set."""
    if info.content is None:
        return ""
    return f", or run {DESCRIBE.format('FILE')} again, with which its stages are new ones"
