"""Crops choose the box of an image that is used. A random box depends only on (seed, epoch, id).

A box is a row (top, left, height, width) in pixels of the stored image. The loader resizes its
content to a square. Each kind of crop is a `types.Crop`.
"""

from __future__ import annotations

import numpy as np

from harness import rng
from harness.data.types import Crop, Integers

RATIO = (3 / 4, 4 / 3)  # of width to height, log-uniform: the default of torchvision and FFCV
TRIES = 10  # random boxes before the fallback, as in torchvision
CENTRE_SHARE = 224 / 256  # side of the box in evaluation, as a share of the image's shorter side


def whole(ids: Integers, heights: Integers, widths: Integers) -> Integers:
    """Return the whole images, for data sets whose images are used at their stored size."""
    return np.stack([np.zeros_like(heights), np.zeros_like(heights), heights, widths], 1)


def centre(ids: Integers, heights: Integers, widths: Integers) -> Integers:
    """Return centred squares, as in FFCV; a side is `CENTRE_SHARE` of the image's shorter side."""
    side = np.maximum((CENTRE_SHARE * np.minimum(heights, widths)).astype(np.int64), 1)
    return np.stack([(heights - side) // 2, (widths - side) // 2, side, side], 1)


def random_resized(seed: int, epoch: int, scale: tuple[float, float]) -> Crop:
    """Return the crop of torchvision's `RandomResizedCrop`, but with draws from `harness.rng`.

    The area of a box is uniform in `scale`, a share of the image's area. Its ratio is log-uniform
    in `RATIO`. If none of `TRIES` boxes fits into the image, the crop is the largest centred box
    with an allowed ratio.
    """

    def crop(ids: Integers, heights: Integers, widths: Integers) -> Integers:
        result = np.empty((len(ids), 4), dtype=np.int64)
        remaining = np.arange(len(ids))  # rows of samples without a box
        # A try takes four draws. The first box fits for nearly all samples, and only the others
        # need the draws of all tries.
        for first, last in ((0, 1), (1, TRIES)):
            draws = rng.uniform(seed, "resized_crop", epoch, ids[remaining], 4 * last)
            for k in range(first, last):
                try_draws = draws[:, 4 * k : 4 * k + 4]
                boxes, fits = _try(try_draws, scale, heights[remaining], widths[remaining])
                result[remaining[fits]] = boxes[fits]
                remaining, draws = remaining[~fits], draws[~fits]
                if not len(remaining):
                    return result
        result[remaining] = _largest(heights[remaining], widths[remaining])
        return result

    return crop


def _try(
    draws: np.ndarray, scale: tuple[float, float], heights: Integers, widths: Integers
) -> tuple[Integers, np.ndarray]:
    """Return a box for each row of four draws, and whether it lies within its image."""
    low, high = scale
    area = heights * widths * (low + (high - low) * draws[:, 0])
    log_low, log_high = np.log(RATIO)
    ratio = np.exp(log_low + (log_high - log_low) * draws[:, 1])
    width = np.rint(np.sqrt(area * ratio)).astype(np.int64)
    height = np.rint(np.sqrt(area / ratio)).astype(np.int64)
    fits = (width > 0) & (width <= widths) & (height > 0) & (height <= heights)
    top = (draws[:, 2] * (heights - height + 1)).astype(np.int64)
    left = (draws[:, 3] * (widths - width + 1)).astype(np.int64)
    return np.stack([top, left, height, width], 1), fits


def _largest(heights: Integers, widths: Integers) -> Integers:
    """Return the largest centred boxes whose ratio is within `RATIO`."""
    width = np.minimum(widths, np.rint(heights * RATIO[1]).astype(np.int64))
    height = np.minimum(heights, np.rint(widths / RATIO[0]).astype(np.int64))
    return np.stack([(heights - height) // 2, (widths - width) // 2, height, width], 1)


def side_at(
    epoch: int, epochs: int, resolution: int, start: int | None, ramp: tuple[float, float]
) -> int:
    """Return the side of training images in `epoch` of `epochs`, in pixels (progressive resizing).

    The side grows linearly from `start` to `resolution`, in multiples of 32. `ramp` has the shares
    of the training at which the growth begins and ends (FFCV's ImageNet recipe). Without `start`
    the side is always `resolution`.
    """
    if start is None:
        return resolution
    begin, end = (share * epochs for share in ramp)
    progress = float(np.clip((epoch - begin) / max(end - begin, 1e-9), 0.0, 1.0))
    if progress == 0.0:
        return start
    if progress == 1.0:
        return resolution
    side = round((start + (resolution - start) * progress) / 32) * 32
    return int(np.clip(side, start, resolution))
