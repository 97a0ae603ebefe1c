"""The data sets that a grid can name: their facts, where their files are looked for, what is wrong.

Torch-free, so that a plan can be checked on a machine that cannot train. The files themselves are
read by the module that a row names (`harness/data/<module>.py`); `docs/datasets.md` adds one.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from harness.errors import UserError, nearest
from harness.schema import DatasetConfig


@dataclass(frozen=True)
class DatasetInfo:
    """One data set. Mean and standard deviation are those of the official training images.

    `files` are what must lie in `folder` under a data root (torchvision's layout), or in
    `system_folder`, each as it is or gzipped. No `folder`: the images come with `package`.
    """

    name: str
    module: str | None  # harness/data/<module>.py with read(folder, info) -> Official
    num_classes: int
    resolution: int  # pixels, square
    mean: tuple[float, ...]  # per channel, of images scaled to [0, 1]
    std: tuple[float, ...]
    train_size: int  # images in the official training set
    test_size: int
    remedy: str  # what to do when it is missing, as the end of a sentence
    folder: str | None = None
    files: tuple[str, ...] = ()
    system_folder: str | None = None  # of the distribution's package
    package: str | None = None  # importable, where the images lie inside one
    torchvision: str | None = None  # the class that knows where to download the files from
    channels: int = 3  # what a model sees; grey images are replicated
    crop_scale: tuple[float, float] | None = None  # image files of any size: `image_folder`


def _or_download(name: str) -> str:
    return f"download it with `python -m harness.data.download {name}` or set run.data_root"


def image_folder(
    name: str,
    num_classes: int,
    train_size: int,
    test_size: int,
    *,
    resolution: int = 224,
    mean: tuple[float, ...] = (0.485, 0.456, 0.406),
    std: tuple[float, ...] = (0.229, 0.224, 0.225),
) -> DatasetInfo:
    """A set of image files of any size: `train/<class>/*` and `val/<class>/*`, or written `.beton`.

    `resolution` (pixels) is what its images are cropped and resized to unless a config says
    otherwise; mean and standard deviation default to ImageNet's.
    """
    return DatasetInfo(
        name=name,
        module=None,
        num_classes=num_classes,
        resolution=resolution,
        mean=mean,
        std=std,
        train_size=train_size,
        test_size=test_size,
        remedy=f"put its folders train/ and val/ (or links to them) there, or write it with "
        f"`python -m harness.data.write dataset={name} source=DIR out=ROOT/{name}` and set "
        "run.data_root=ROOT",
        folder=name,
        crop_scale=(0.08, 1.0),
    )


_ROWS = (
    image_folder("imagenet", num_classes=1000, train_size=1_281_167, test_size=50_000),
    DatasetInfo(
        name="fashion_mnist",
        module="fashion_mnist",
        num_classes=10,
        resolution=28,
        mean=(0.2860,) * 3,
        std=(0.3530,) * 3,
        train_size=60_000,
        test_size=10_000,
        remedy="install the Debian package dataset-fashion-mnist, "
        + _or_download("fashion_mnist")
        + " to a folder that holds FashionMNIST/raw",
        folder="FashionMNIST/raw",
        files=(
            "train-images-idx3-ubyte",
            "train-labels-idx1-ubyte",
            "t10k-images-idx3-ubyte",
            "t10k-labels-idx1-ubyte",
        ),
        system_folder="/usr/share/datasets/fashion-mnist",
        torchvision="FashionMNIST",
    ),
    DatasetInfo(
        name="cifar10",
        module="cifar",
        num_classes=10,
        resolution=32,
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2470, 0.2435, 0.2616),
        train_size=50_000,
        test_size=10_000,
        remedy=_or_download("cifar10") + " to a folder that holds cifar-10-batches-py",
        folder="cifar-10-batches-py",
        files=(*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"),
        torchvision="CIFAR10",
    ),
    DatasetInfo(
        name="cifar100",
        module="cifar",
        num_classes=100,
        resolution=32,
        mean=(0.5071, 0.4865, 0.4409),
        std=(0.2673, 0.2564, 0.2762),
        train_size=50_000,
        test_size=10_000,
        remedy=_or_download("cifar100") + " to a folder that holds cifar-100-python",
        folder="cifar-100-python",
        files=("train", "test"),
        torchvision="CIFAR100",
    ),
    DatasetInfo(
        name="digits",
        module="digits",
        num_classes=10,
        resolution=8,
        mean=(0.3053,) * 3,
        std=(0.3758,) * 3,
        train_size=1_437,
        test_size=360,
        remedy="install scikit-learn, which carries the images",
        package="sklearn",
    ),
)

CATALOG: dict[str, DatasetInfo] = {row.name: row for row in _ROWS}
MANIFEST = "manifest.json"  # of a written set; it is written last (`write.py`)


def written(info: DatasetInfo, data_root: str | None) -> Path | None:
    """The first folder `<root>/<name>` with `.beton` files of this data set that are finished."""
    return next((p for p in _under(data_root, info.name) if (p / MANIFEST).is_file()), None)


def tree(info: DatasetInfo, data_root: str | None) -> Path | None:
    """The first folder `<root>/<name>` with the image files of this data set."""
    parts = ("train", "val")
    folders = _under(data_root, info.name)
    return next((p for p in folders if all((p / part).is_dir() for part in parts)), None)


def _under(data_root: str | None, name: str) -> list[Path]:
    """The folder of this name in the data root, then in `data/` here."""
    return [Path(root).expanduser() / name for root in (data_root, "data") if root is not None]


def places(info: DatasetInfo, data_root: str | None) -> list[Path]:
    """Where the files are looked for, first to last: the data root, `data/` here, the package's."""
    if info.folder is None:
        return []
    system = [Path(info.system_folder)] if info.system_folder else []
    return _under(data_root, info.folder) + system


def find_file(folder: Path, name: str) -> Path | None:
    """`name` in `folder`, as it is or gzipped."""
    candidates = (folder / name, folder / f"{name}.gz")
    return next((path for path in candidates if path.is_file()), None)


def find(info: DatasetInfo, data_root: str | None) -> Path | None:
    """The first folder that holds all files of a data set that lies in files."""
    if info.module is None:
        return written(info, data_root) or tree(info, data_root)
    for folder in places(info, data_root):
        if all(find_file(folder, name) for name in info.files):
            return folder
    return None


def missing(info: DatasetInfo, data_root: str | None) -> str | None:
    """A sentence about a data set that is not there: what, where it was looked for, the remedy."""
    if info.package is not None:
        if importlib.util.find_spec(info.package) is not None:
            return None
        return f"the data set {info.name} needs the package {info.package}: {info.remedy}."
    if find(info, data_root) is not None:
        return None
    if info.module is None:
        looked = "; ".join(map(str, places(info, data_root)))
        return (
            f"the data set {info.name} is not there; neither {MANIFEST} nor train/ and val/ are in "
            f"{looked}: {info.remedy}."
        )
    lacks = [
        f"{place} (lacks {', '.join(lacking)})" if place.is_dir() else f"{place} (no such folder)"
        for place in places(info, data_root)
        for lacking in [[name for name in info.files if find_file(place, name) is None]]
    ]
    return (
        f"the files of the data set {info.name} are not there; looked in {'; '.join(lacks)}: "
        f"{info.remedy}."
    )


def _of_sides(config: DatasetConfig, info: DatasetInfo) -> list[str]:
    """What is wrong with the keys that only image files of any size have."""
    if info.crop_scale is None:
        said = ("resolution", "crop_scale", "start_resolution")
        return [
            f"dataset.{key}: the images of {info.name} are used as they are, "
            f"{info.resolution}x{info.resolution}; leave it out."
            for key in said
            if getattr(config, key) is not None
        ]
    problems = []
    full = config.resolution or info.resolution
    if config.start_resolution is not None and config.start_resolution > full:
        problems.append(
            f"dataset.start_resolution: {config.start_resolution} is more than the {full} pixels "
            "that it should grow to."
        )
    if config.crop_scale is not None and config.crop_scale[1] == 0.0:
        problems.append("dataset.crop_scale: crops of none of an image; [0.08, 1] is common.")
    return problems


def misfits(config: DatasetConfig) -> list[str]:
    """Sentences about a name that is not known and sizes that do not fit."""
    info = CATALOG.get(config.name)
    if info is None:
        return [f"dataset.name: no data set '{config.name}'{nearest(config.name, CATALOG)}."]
    problems = _of_sides(config, info)
    left = info.train_size - config.validation_size
    if left < 1:
        problems.append(
            f"dataset.validation_size: {config.validation_size} leaves nothing to train on, "
            f"because {info.name} has {info.train_size} training images."
        )
    elif config.train_size is not None and config.train_size > left:
        problems.append(
            f"dataset.train_size: {config.train_size} is more than the {left} training images of "
            f"{info.name} that validation_size={config.validation_size} leaves."
        )
    if config.test_size is not None and config.test_size > info.test_size:
        problems.append(
            f"dataset.test_size: {config.test_size} is more than the {info.test_size} test images "
            f"of {info.name}."
        )
    return problems


def check(config: DatasetConfig, data_root: str | None) -> list[str]:
    """Sentences about everything that is wrong with a data set's config, absent files included."""
    problems = misfits(config)
    absent = missing(CATALOG[config.name], data_root) if config.name in CATALOG else None
    return [*problems, f"dataset.name: {absent}"] if absent else problems


def check_counts(info: DatasetInfo, train: int, test: int, classes: int, place: object) -> None:
    """Raise `UserError` unless these are the numbers of the catalog."""
    expected, found = (info.train_size, info.test_size, info.num_classes), (train, test, classes)
    if expected != found:
        said, is_there = (
            "{:,} training images, {:,} test images and {:,} classes".format(*numbers)
            for numbers in (expected, found)
        )
        raise UserError(
            f"{info.name} should have {said}, and {place} holds {is_there}; complete it, or "
            "correct its line in harness/data/catalog.py."
        )
