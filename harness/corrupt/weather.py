"""Weather: snow, frost, fog and brightness. Images are as in `noise`."""

from __future__ import annotations

import numpy as np

from harness.corrupt.blur import magnified, move
from harness.corrupt.draws import Draws, Floats

GREY = np.array([0.299, 0.587, 0.114])  # luma of ITU-R BT.601
FROSTS = np.array(
    [
        [[77.7, 149.1, 165.7], [26.9, 16.5, 15.3]],
        [[200.8, 205.4, 214.5], [21.4, 22.1, 22.6]],
        [[200.8, 205.4, 214.5], [21.4, 22.1, 22.6]],
        [[137.6, 152.8, 165.2], [28.5, 28.5, 29.9]],
        [[112.4, 123.4, 134.8], [44.4, 43.3, 41.7]],
        [[71.4, 95.4, 104.5], [35.2, 42.7, 47.4]],
    ]
)
"""Mean and standard deviation [photograph, 2, RGB] of the library's photographs of frost."""
CRYSTALS = 3.0  # waves of a ridge over the range of a fractal: fewer look like clouds


def snow(images: Floats, flakes: tuple[float, ...], draws: Draws) -> Floats:
    """Add moving flakes and whiten the image.

    `flakes` is the mean and deviation of the noise that flakes are made of, their magnification,
    the threshold, radius and deviation of their motion, and the share that is not whitened.
    """
    mean, deviation, magnification, threshold, radius, sigma, share = flakes
    noise = draws.normal(mean, deviation, *images.shape[1:3])[..., None]
    layer = magnified(noise, magnification)
    layer[layer < threshold] = 0.0
    angles = draws.uniform(-135.0, -45.0)
    layer = move(np.clip(layer, 0, 1), (int(radius), sigma), angles)
    layer = np.rint(layer * 255.0) / 255.0
    grey = (images @ GREY)[..., None]
    whitened = share * images + (1 - share) * np.maximum(images, grey * 1.5 + 0.5)
    return np.asarray(whitened + layer + np.rot90(layer, 2, axes=(1, 2)))


def frost(images: Floats, shares: tuple[float, float], draws: Draws) -> Floats:
    """Mix the image with crystals of ice: `shares` are those of the image and of the ice.

    The library crops one of six photographs, two of which are equal. The project does not ship
    them: ridges of a fractal get the mean and the deviation of a photograph in each channel.
    """
    height, width = images.shape[1:3]
    chosen = FROSTS[draws.integers(0, len(FROSTS))]  # [N, 2, 3]
    relief = _plasma(2 * _power_of_two(max(height, width)), 1.6, draws)
    ridges = 1.0 - np.abs(np.sin(np.pi * CRYSTALS * relief))
    ridges -= ridges.mean(axis=(1, 2), keepdims=True)
    ridges /= ridges.std(axis=(1, 2), keepdims=True)
    # a crop, so that images differ in their mean as crops of a photograph do
    tops, lefts = draws.integers(0, ridges.shape[1] - max(height, width) + 1, 2).T
    crops = np.stack([ridge[top : top + height, left : left + width]
                      for ridge, top, left in zip(ridges, tops, lefts, strict=True)])  # fmt: skip
    mean, deviation = chosen[:, 0, None, None, :], chosen[:, 1, None, None, :]
    ice = np.clip(mean + deviation * crops[..., None], 0, 255) / 255.0
    return np.asarray(shares[0] * images + shares[1] * ice)


def fog(images: Floats, haze: tuple[float, float], draws: Draws) -> Floats:
    """Add clouds: `haze` is their strength, and by how much each finer scale is weaker."""
    strength, decay = haze
    height, width = images.shape[1:3]
    clouds = _plasma(_power_of_two(max(height, width)), decay, draws)[:, :height, :width, None]
    highest = images.max(axis=(1, 2, 3), keepdims=True)
    return np.asarray((images + strength * clouds) * highest / (highest + strength))


def brightness(images: Floats, added: float, draws: Draws) -> Floats:
    """Add to the value of hue, saturation and value."""
    value = images.max(axis=3, keepdims=True)
    brighter = np.clip(value + added, 0, 1)
    scaled = images * (brighter / np.where(value > 0, value, 1.0))
    return np.where(value > 0, scaled, brighter)


def _power_of_two(side: int) -> int:
    """Return the lowest power of two that is not below `side`."""
    return 1 << (side - 1).bit_length()


def _plasma(side: int, decay: float, draws: Draws) -> Floats:
    """Return fractals [N, side, side] in [0, 1], by the diamond-square algorithm on a torus.

    `side` is a power of two. Each finer scale is `decay` times weaker.
    """
    first = draws.uniform(0, 0)  # [N]: zeros, for the number of images
    maps = np.zeros((len(first), side, side))
    step, wibble = side, 100.0

    def noisy(sums: Floats) -> Floats:
        return sums / 4 + wibble * draws.uniform(-wibble, wibble, *sums.shape[1:])

    while step >= 2:
        half = step // 2
        corners = maps[:, ::step, ::step]
        squares = corners + np.roll(corners, -1, axis=1)
        squares = squares + np.roll(squares, -1, axis=2)
        maps[:, half::step, half::step] = noisy(squares)
        centres, corners = maps[:, half::step, half::step], maps[:, ::step, ::step]
        across = centres + np.roll(centres, 1, axis=1) + corners + np.roll(corners, -1, axis=2)
        maps[:, ::step, half::step] = noisy(across)
        down = centres + np.roll(centres, 1, axis=2) + corners + np.roll(corners, -1, axis=1)
        maps[:, half::step, ::step] = noisy(down)
        step, wibble = half, wibble / decay
    maps -= maps.min(axis=(1, 2), keepdims=True)
    return np.asarray(maps / maps.max(axis=(1, 2), keepdims=True))
