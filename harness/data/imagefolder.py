"""Images in a tree of image files, decoded by Pillow: slower than FFCV, but it works everywhere.

The tree is that of torchvision's `ImageFolder`: `train/<class>/*.jpg` and `val/<class>/*.jpg`. An
image's id is its position in the list of paths, sorted by class and name, as in torchvision.
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

from harness.data.threads import Stalled
from harness.data.types import Bytes, Crop, Decoder, Integers
from harness.errors import UserError

SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
PARTS = ("train", "val")  # the folders of the official training set and the official test set


@dataclass(frozen=True)
class ImageTree:
    """The images of one part of a tree: `paths` below `root`, labels int64 [N], class names."""

    root: Path
    paths: tuple[str, ...]
    labels: Integers
    classes: tuple[str, ...]


def scan(root: Path) -> ImageTree:
    """List the images of `root`, which has one folder for each class.

    Raises:
        UserError: there is no such folder, it has no class folders, or a class has no images.
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
    with ThreadPoolExecutor(8) as pool:  # a network folder answers several requests at once
        listed = list(pool.map(lambda name: _images(root / name), classes))
    empty = [name for name, names in zip(classes, listed, strict=True) if not names]
    if empty:
        shown = ", ".join(empty[:5]) + (", ..." if len(empty) > 5 else "")
        raise UserError(
            f"{len(empty)} of the {len(classes)} class folders of {root} hold no image ({shown}): "
            f"fill them or remove them. The names of images end in {', '.join(SUFFIXES)}."
        )
    paths = [
        f"{name}/{file}" for name, files in zip(classes, listed, strict=True) for file in files
    ]
    labels = np.repeat(np.arange(len(classes)), [len(files) for files in listed])
    return ImageTree(root, tuple(paths), labels.astype(np.int64), tuple(classes))


def _images(folder: Path) -> list[str]:
    """Return the relative paths of all images at any depth, in torchvision's order."""
    paths = []
    for parent, folders, files in os.walk(folder, followlinks=True):
        folders.sort()
        inner = os.path.relpath(parent, folder)
        names = sorted(file for file in files if file.lower().endswith(SUFFIXES))
        paths += names if inner == "." else [f"{inner}/{name}" for name in names]
    return paths


def scan_parts(folder: Path) -> tuple[ImageTree, ImageTree]:
    """List the official training set and the official test set of a tree.

    Raises:
        UserError: see `scan`; or the two parts have different classes.
    """
    train, test = (scan(folder / part) for part in PARTS)
    if train.classes != test.classes:
        differing = sorted(set(train.classes) ^ set(test.classes))
        raise UserError(
            f"{folder}/train and {folder}/val have different classes: {', '.join(differing[:5])} "
            f"{'is' if len(differing) == 1 else 'are'} in only one of them. Both need a folder for "
            "each class."
        )
    return train, test


class BadImage(Exception):
    """A file that could be read but is not an image that Pillow can decode."""


def read_bytes(path: Path) -> bytes:
    """Return the file's content. Errors here say nothing about the image in the file.

    Raises:
        UserError: the file does not exist any more.
        Stalled: the storage or this machine failed to read it.
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
    """Turn any error of Pillow into `BadImage`. A damaged file can make it raise anything."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        raise BadImage(" ".join(str(error).split()) or type(error).__name__) from error


def read_image(path: Path) -> Image.Image:
    """Return the decoded image in RGB.

    Raises:
        BadImage: the file does not decode.
        UserError, Stalled: see `read_bytes`.
    """
    content = read_bytes(path)
    with _decoding(), Image.open(io.BytesIO(content)) as image:
        return image.convert("RGB")


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Turn `BadImage` into a `UserError` that names the file."""
    try:
        yield
    except BadImage as error:
        raise UserError(f"the image {path} does not decode ({error}): replace it.") from error


class FolderImages:
    """The images of a tree with the given ids: `types.EncodedImages`."""

    loader = "imagefolder"

    def __init__(self, tree: ImageTree, ids: Integers) -> None:
        self._root = tree.root
        self._paths: Sequence[str] = [tree.paths[i] for i in ids]

    def decoder(self, rows: Integers, ids: Integers, crop: Crop) -> Decoder:
        """See `EncodedImages.decoder`."""

        def decode(piece: slice, out: Bytes) -> None:
            paths = [self._root / self._paths[row] for row in rows[piece]]
            opened = []
            for path in paths:  # each file is read whole, so a thread has one file open at most
                content = read_bytes(path)
                with _named(path), _decoding():  # reads the header, which has the size
                    opened.append(Image.open(io.BytesIO(content)))
            widths, heights = np.array([image.size for image in opened], dtype=np.int64).T
            boxes = crop.boxes(ids[piece], heights, widths).tolist()
            for path, image, box, target in zip(paths, opened, boxes, out, strict=True):
                top, left, height, width = box
                with _named(path), _decoding():
                    pixels = image.convert("RGB")
                image.close()
                # Cropped before it is resized, as in torchvision: pixels outside have no influence.
                pixels = pixels.crop((left, top, left + width, top + height))
                target[:] = pixels.resize(target.shape[1::-1], Image.Resampling.BILINEAR)

        return decode
