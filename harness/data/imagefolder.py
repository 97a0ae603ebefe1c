"""Images out of a tree of image files, decoded by Pillow: slower than FFCV, and works everywhere.

The tree is torchvision's `ImageFolder`: `train/<class>/*.jpg` and `val/<class>/*.jpg`. An image's
id is its position in the list of paths, sorted by class and name, as torchvision sorts them.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from harness.data.crops import Crop
from harness.data.official import Bytes, Integers
from harness.data.threads import Stalled
from harness.errors import UserError

SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
PARTS = ("train", "val")  # folders: the official training set, and the official test set


@dataclass(frozen=True)
class Tree:
    """One part of a tree: `paths` below `root`, labels int64 [N], names of the classes."""

    root: Path
    paths: tuple[str, ...]
    labels: Integers
    classes: tuple[str, ...]


def scan(root: Path) -> Tree:
    """List the images of `root`, a folder of class folders.

    Raises:
        UserError: no such folder, no class folders, or a class without images.
    """
    try:
        with os.scandir(root) as entries:
            classes = sorted(entry.name for entry in entries if entry.is_dir())
    except OSError as error:
        raise UserError(f"{root} cannot be read ({error.strerror}).") from error
    if not classes:
        raise UserError(
            f"{root} has no class folders: images lie in one folder for each class, as in "
            f"{root}/n01440764/some.jpg."
        )
    with ThreadPoolExecutor(8) as pool:  # a network folder answers many questions at once
        listed = list(pool.map(lambda name: _images(root / name), classes))
    empty = [name for name, names in zip(classes, listed, strict=True) if not names]
    if empty:
        shown = ", ".join(empty[:5]) + (", ..." if len(empty) > 5 else "")
        raise UserError(
            f"{len(empty)} of the {len(classes)} class folders of {root} hold no image ({shown}): "
            f"fill them or remove them. Images end in {', '.join(SUFFIXES)}."
        )
    paths = [
        f"{name}/{file}" for name, files in zip(classes, listed, strict=True) for file in files
    ]
    labels = np.repeat(np.arange(len(classes)), [len(files) for files in listed])
    return Tree(root, tuple(paths), labels.astype(np.int64), tuple(classes))


def _images(folder: Path) -> list[str]:
    """Relative paths of all images at any depth, in torchvision's order."""
    found = []
    for place, folders, files in os.walk(folder, followlinks=True):
        folders.sort()
        inner = os.path.relpath(place, folder)
        names = sorted(file for file in files if file.lower().endswith(SUFFIXES))
        found += names if inner == "." else [f"{inner}/{name}" for name in names]
    return found


def scan_both(folder: Path) -> tuple[Tree, Tree]:
    """The official training and test set of a tree.

    Raises:
        UserError: what `scan` says, or parts whose classes differ.
    """
    train, test = (scan(folder / part) for part in PARTS)
    if train.classes != test.classes:
        odd = sorted(set(train.classes) ^ set(test.classes))
        raise UserError(
            f"{folder}/train and {folder}/val have other classes: {', '.join(odd[:5])} "
            f"{'is' if len(odd) == 1 else 'are'} in one of them only."
        )
    return train, test


class BadImage(Exception):
    """A file that was read and is not an image that Pillow decodes."""


def read_bytes(path: Path) -> bytes:
    """The file's content. What goes wrong here says nothing about the image in it.

    Raises:
        UserError: the file is gone.
        Stalled: storage, or this machine, would not give it.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise UserError(
            f"the image {path} was there when its folder was listed and is gone: put it back."
        ) from error
    except OSError as error:
        raise Stalled(f"the image {path} cannot be read ({error.strerror or error}).") from error


@contextlib.contextmanager
def _decoding() -> Iterator[None]:
    """What Pillow raises about content that is in memory; a damaged file can raise anything."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        raise BadImage(" ".join(str(error).split()) or type(error).__name__) from error


def read_image(path: Path) -> Image.Image:
    """The image in RGB, decoded.

    Raises:
        BadImage: a file that does not decode.
        UserError, Stalled: see `read_bytes`.
    """
    content = read_bytes(path)
    with _decoding(), Image.open(io.BytesIO(content)) as image:
        return image.convert("RGB")


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """A bad image as a sentence about this one."""
    try:
        yield
    except BadImage as error:
        raise UserError(f"the image {path} does not decode ({error}): replace it.") from error


class Folder:
    """Some images of a tree: `streamed.Coded`."""

    loader = "imagefolder"

    def __init__(self, tree: Tree, ids: Integers) -> None:
        self._root = tree.root
        self._paths: Sequence[str] = [tree.paths[i] for i in ids]

    def job(self, rows: Integers, ids: Integers, crop: Crop):  # type: ignore[no-untyped-def]
        """See `streamed.Coded.job`."""

        def fill(part: slice, out: Bytes) -> None:
            paths = [self._root / self._paths[row] for row in rows[part]]
            opened = []
            for path in paths:  # whole files, so that never more than one of a thread is open
                content = read_bytes(path)
                with _named(path), _decoding():  # which reads the size and no more
                    opened.append(Image.open(io.BytesIO(content)))
            widths, heights = np.array([image.size for image in opened], dtype=np.int64).T
            boxes = crop.boxes(ids[part], heights, widths).tolist()
            for i, (path, box, place) in enumerate(zip(paths, boxes, out, strict=True)):
                top, left, height, width = box
                with _named(path), _decoding():
                    decoded = opened[i].convert("RGB")
                opened[i].close()
                # crop and then resize, as torchvision does: a pixel outside has no influence
                decoded = decoded.crop((left, top, left + width, top + height))
                place[:] = decoded.resize(place.shape[1::-1], Image.Resampling.BILINEAR)

        return fill
