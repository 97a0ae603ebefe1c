"""Digital corruptions: contrast, elastic distortion, coarse pixels, JPEG. Images as in `noise`."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from PIL import Image
from scipy.ndimage import map_coordinates

from harness.corrupt.blur import smooth
from harness.corrupt.draws import Draws, Floats
from harness.corrupt.severities import LARGE_SIDE


def contrast(images: Floats, share: float, draws: Draws) -> Floats:
    """Move each channel towards its mean, so that a share of the differences is left."""
    means = images.mean(axis=(1, 2), keepdims=True)
    return np.asarray((images - means) * share + means)


def elastic_transform(images: Floats, elastic: tuple[float, float, float], draws: Draws) -> Floats:
    """Move three points, and with them the image, and then each pixel, smoothly.

    `elastic` is the amplitude of the pixels' moves before smoothing, the deviation of the
    smoothing, and the largest move of the points, in sides of the image.
    """
    amplitude, sigma, shift = elastic
    height, width = images.shape[1:3]
    side = min(height, width)
    rows, columns = np.meshgrid(np.arange(height, dtype=float), np.arange(width), indexing="ij")
    if shift:
        images = _sampled(images, *_affine(rows, columns, side, shift * side, draws))
    if amplitude:
        moves = [
            smooth(draws.uniform(-1, 1, height, width), sigma * side, "reflect", 3.0)
            * (amplitude * side)
            for _ in range(2)
        ]
        images = _sampled(images, rows + moves[0], columns + moves[1], "reflect")
    return images


def _affine(
    rows: Floats, columns: Floats, side: int, shift: float, draws: Draws
) -> tuple[Floats, Floats]:
    """Return where each pixel comes from, [N, H, W], if three points move by up to `shift`."""
    centre = np.array(rows.shape) // 2
    reach = side // 3
    before = np.array([centre + reach, [centre[0] + reach, centre[1] - reach], centre - reach])
    after = before + draws.uniform(-shift, shift, 3, 2)  # [N, 3, 2]
    ones = np.ones((len(after), 3, 1))
    backward = np.linalg.solve(np.concatenate([after, ones], axis=2), before[None].astype(float))
    places = np.stack([rows, columns, np.ones_like(rows)], axis=-1)  # [H, W, 3]
    sources = np.einsum("hwk,nkc->nhwc", places, backward)
    return sources[..., 0], sources[..., 1]


def _sampled(images: Floats, rows: Floats, columns: Floats, mode: str = "mirror") -> Floats:
    """Return images with the pixel of (rows, columns) [N, H, W] at each place, linearly."""
    return np.stack(
        [
            np.stack([map_coordinates(image[..., channel], [row, column], order=1, mode=mode)
                      for channel in range(3)], axis=-1)
            for image, row, column in zip(images, rows, columns, strict=True)
        ]
    )  # fmt: skip


def pixelate(images: Floats, share: float, draws: Draws) -> Floats:
    """Shrink the image to a share of its side, by averages, and enlarge it again."""
    height, width = images.shape[1:3]
    enlarge = Image.Resampling.BOX if min(height, width) < LARGE_SIDE else Image.Resampling.NEAREST

    def change(image: Image.Image) -> Image.Image:
        small = image.resize((int(width * share), int(height * share)), Image.Resampling.BOX)
        return small.resize((width, height), enlarge)

    return _by_pillow(images, change)


def jpeg_compression(images: Floats, quality: int, draws: Draws) -> Floats:
    """Compress to JPEG of this quality and decompress."""

    def change(image: Image.Image) -> Image.Image:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality)
        return Image.open(file)

    return _by_pillow(images, change)


def _by_pillow(images: Floats, change: Callable[[Image.Image], Image.Image]) -> Floats:
    bytes_of = np.rint(images * 255.0).astype(np.uint8)
    return np.stack([np.asarray(change(Image.fromarray(image))) for image in bytes_of]) / 255.0
