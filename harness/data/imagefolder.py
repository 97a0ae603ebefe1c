"""Image files decoded by Pillow: slower than FFCV, but it works everywhere.

Training and `harness.data.write` decode with the same function, `to_rgb`, so an image has the same
pixels in both. `docs/datasets.md` lists what each kind of image becomes.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, UnidentifiedImageError

from harness.data.catalog import shown
from harness.data.threads import Stalled
from harness.data.types import Bytes, Crop, Decoder, Integers
from harness.errors import UserError

SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
_BITS_PER_SAMPLE, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339  # tags of a TIFF file


class BadImage(Exception):
    """A file that could be read but is not an image that can be used."""


def read_bytes(path: Path) -> bytes:
    """Return the file's content. An error does not mean that the image in the file is bad.

    Raises:
        UserError: the file does not exist any more.
        Stalled: the storage or this machine failed to read it.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise UserError(
            f"the image {shown(path)} was there when its folder was listed and is gone: put it "
            "back."
        ) from error
    except OSError as error:
        reason = error.strerror or error
        raise Stalled(f"the image {shown(path)} cannot be read ({reason}).") from error


@contextlib.contextmanager
def decoding() -> Iterator[None]:
    """Turn any error of Pillow into `BadImage`. A damaged file can make Pillow raise any error."""
    try:
        yield
    except (MemoryError, BadImage):
        raise
    except UnidentifiedImageError as error:  # its own message has the address of an object
        raise BadImage("it is not an image of a format that Pillow reads") from error
    except Exception as error:
        raise BadImage(" ".join(str(error).split()) or type(error).__name__) from error


def open_image(file: IO[bytes]) -> Image.Image:
    """Return the image in `file` with its header read, but not its pixels. Call in `decoding`.

    Raises `BadImage` for an image without pixels, or if the file does not state which of its values
    are black and white.
    """
    image = Image.open(file)
    if 0 in image.size:
        raise BadImage(f"it has {image.width} x {image.height} pixels")
    # Signed 8-bit values have the same mode as unsigned ones, so the TIFF tag is read.
    is_signed = 2 in getattr(image, "tag_v2", {}).get(_SAMPLE_FORMAT, ())
    # In PGM files (with older releases also PNG), mode I stands for 16 bits: values up to 65,535.
    if image.mode == "F" or is_signed or (image.mode == "I" and image.format not in ("PPM", "PNG")):
        kind = "floating-point" if image.mode == "F" else "32-bit or signed"
        raise BadImage(
            f"it has {kind} values, and the file does not say which of them are black and white: "
            "store 8 or 16 unsigned bits a channel"
        )
    return image


def to_rgb(image: Image.Image) -> Image.Image:
    """Return the first frame in RGB with 8 bits a channel. Call in `decoding`.

    The upper 8 of 16 bits are kept. Pillow does that itself for colour images, but not for grey
    ones. Transparency, colour profiles and the orientation in EXIF are ignored, as in torchvision.
    """
    if image.mode.startswith("I"):
        tags = getattr(image, "tag_v2", {})
        bits = tags.get(_BITS_PER_SAMPLE, (16,))[0]
        levels = (np.asarray(image) >> (bits - 8)).astype(np.uint8)
        if tags.get(_PHOTOMETRIC) == 0:  # 0 is white; Pillow inverts such values only up to 8 bits
            levels = 255 - levels
        image = Image.fromarray(levels)
    image.info.pop("transparency", None)  # `convert` would warn that it cannot keep it
    return image.convert("RGB")


def read_image(path: Path) -> Image.Image:
    """Return the decoded image in RGB.

    Raises:
        BadImage: the file does not decode.
        UserError, Stalled: see `read_bytes`.
    """
    content = read_bytes(path)
    with decoding(), open_image(io.BytesIO(content)) as image:
        return to_rgb(image)


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Turn `BadImage` into a `UserError` that names the file."""
    try:
        yield
    except BadImage as error:
        raise UserError(
            f"the image {shown(path)} does not decode ({error}): replace it."
        ) from error


class FolderImages:
    """The images at `paths` below `root`: a `types.EncodedImages`."""

    loader = "imagefolder"

    def __init__(self, root: Path, paths: Sequence[str]) -> None:
        self._root, self._paths = root, paths

    def decoder(self, rows: Integers, ids: Integers, crop: Crop) -> Decoder:
        """See `EncodedImages.decoder`."""

        def decode(piece: slice, out: Bytes) -> None:
            paths = [self._root / self._paths[row] for row in rows[piece]]
            opened = []
            for path in paths:
                # The whole file is read, so a thread never has more than one file open.
                content = read_bytes(path)
                with _named(path), decoding():
                    opened.append(open_image(io.BytesIO(content)))
            widths, heights = np.array([image.size for image in opened], dtype=np.int64).T
            boxes = crop(ids[piece], heights, widths).tolist()
            for path, image, box, target in zip(paths, opened, boxes, out, strict=True):
                top, left, height, width = box
                with _named(path), decoding():
                    pixels = to_rgb(image)
                image.close()
                # The image is cropped before it is resized, as in torchvision, so that pixels
                # outside of the box have no influence.
                pixels = pixels.crop((left, top, left + width, top + height))
                target[:] = pixels.resize(target.shape[1::-1], Image.Resampling.BILINEAR)

        return decode
