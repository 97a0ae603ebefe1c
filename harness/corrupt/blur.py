"""Blurs: defocus, glass, motion and zoom. Images are as in `noise`."""

from __future__ import annotations

import math

import numpy as np
from scipy.ndimage import correlate, correlate1d, gaussian_filter

from harness.corrupt.draws import Draws, Floats

LARGEST_TABLE = 8  # radius of a disk up to which its kernel has 17 x 17 values


def smooth(images: Floats, sigma: float, mode: str = "nearest", truncate: float = 4.0) -> Floats:
    """Return images [N, H, W, ...] after a Gaussian filter of `sigma` pixels along H and W."""
    filtered = gaussian_filter(images, sigma, axes=(1, 2), mode=mode, truncate=truncate)
    return np.asarray(filtered, dtype=np.float64)


def defocus_blur(images: Floats, disk: tuple[float, float], draws: Draws) -> Floats:
    """Average over a disk; `disk` is its radius and the deviation that softens its edge, pixels."""
    kernel = _disk(*disk)
    return np.asarray(correlate(images, kernel[None, :, :, None], mode="mirror"))


def _disk(radius: float, softness: float) -> Floats:
    """Return a kernel [K, K] with sum 1."""
    reach, taps = (8, 1) if radius <= LARGEST_TABLE else (int(radius), 2)
    at = np.arange(-reach, reach + 1)
    disk = (at[None, :] ** 2 + at[:, None] ** 2 <= radius**2).astype(np.float64)
    weights = np.exp(-(np.arange(-taps, taps + 1) ** 2) / (2 * softness**2))
    weights /= weights.sum()
    for axis in (0, 1):
        disk = correlate1d(disk, weights, axis, mode="mirror")
    return np.asarray(disk / disk.sum())


def glass_blur(images: Floats, glass: tuple[float, int, int], draws: Draws) -> Floats:
    """Blur, take pixels from nearby, and blur again.

    `glass` is the deviation of the blur, the largest distance and the number of passes. The
    published sets were made by code that meant to swap two pixels. It copied the second one over
    the first, because the two sides of the assignment were views of one array; so does this.
    """
    sigma, distance, passes = glass
    count, height, width = images.shape[:3]
    blurred = np.floor(smooth(images, sigma) * 255.0 + 1e-6) / 255.0
    rows = np.arange(height - distance, distance, -1)
    columns = np.arange(width - distance, distance, -1)
    places = (rows[:, None] * width + columns[None, :]).ravel()
    moves = draws.integers(-distance, distance, passes, len(places), 2)
    sources = np.empty((count, height * width), dtype=np.int64)
    for number in range(count):
        taken = list(range(height * width))
        for move in moves[number]:
            others = places + move[:, 1] * width + move[:, 0]
            # one after the other, because a pixel may be taken from a place that has changed
            for place, other in zip(places.tolist(), others.tolist(), strict=True):
                taken[place] = taken[other]
        sources[number] = taken
    flat = blurred.reshape(count, height * width, 3)
    shuffled = np.take_along_axis(flat, sources[:, :, None], axis=1)
    return smooth(shuffled.reshape(images.shape), sigma)


def motion_blur(images: Floats, motion: tuple[int, float], draws: Draws) -> Floats:
    """Blur along a direction of at most 45 degrees to the horizontal: `motion` as in `move`."""
    return move(images, motion, draws.uniform(-45.0, 45.0))


def move(images: Floats, motion: tuple[int, float], angles: Floats) -> Floats:
    """Return the weighted mean of shifted images; `angles` [N] are in degrees.

    `motion` is the radius and the deviation of the weights, a half Gaussian, in pixels.
    """
    radius, sigma = motion
    width = 2 * radius + 1
    weights = np.exp(-(np.arange(width) ** 2) / (2 * sigma**2))
    weights /= weights.sum()
    moved = np.zeros_like(images)
    height, breadth = images.shape[1:3]
    rows, columns = np.arange(height), np.arange(breadth)
    for number, angle in enumerate(np.deg2rad(angles)):
        for step, weight in enumerate(weights):
            dy = -math.ceil(step * math.sin(angle) - 0.5)
            dx = -math.ceil(step * math.cos(angle) - 0.5)
            if abs(dy) >= height or abs(dx) >= breadth:
                break
            from_rows = np.clip(rows - dy, 0, height - 1)
            from_columns = np.clip(columns - dx, 0, breadth - 1)
            moved[number] += weight * images[number][from_rows][:, from_columns]
    return moved


def zoom_blur(images: Floats, zooms: tuple[float, float], draws: Draws) -> Floats:
    """Return the mean over factors of magnification from 1 up to 1 + `zooms[0]`, by `zooms[1]`."""
    reach, step = zooms
    factors = np.arange(1, 1 + reach, step)
    total = images.copy()
    for factor in factors:
        total += magnified(images, float(factor))
    return total / (len(factors) + 1)


def magnified(images: Floats, factor: float) -> Floats:
    """Return the centre of images [N, H, W, C], magnified linearly to their size."""
    height, width = images.shape[1:3]
    high, wide = math.ceil(height / factor), math.ceil(width / factor)
    top, left = (height - high) // 2, (width - wide) // 2
    centre = images[:, top : top + high, left : left + wide]
    for axis, length in ((1, height), (2, width)):
        centre = _stretched(centre, axis, factor, length)
    return centre


def _stretched(images: Floats, axis: int, factor: float, length: int) -> Floats:
    """Return the middle `length` pixels of images that are stretched linearly along an axis.

    `scipy.ndimage.zoom` gives the same numbers, and takes 20 times as long.
    """
    old = images.shape[axis]
    new = round(old * factor)
    first = (new - length) // 2
    places = np.arange(first, first + length) * ((old - 1) / max(new - 1, 1))
    low = np.minimum(places.astype(np.int64), old - 1)
    high = np.minimum(low + 1, old - 1)
    shares = (places - low).reshape([-1 if at == axis else 1 for at in range(images.ndim)])
    return images.take(low, axis) * (1 - shares) + images.take(high, axis) * shares
