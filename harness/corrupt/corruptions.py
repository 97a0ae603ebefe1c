"""The 15 corruptions of Hendrycks and Dietterich (2019), each at 5 severities."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.corrupt.blur import defocus_blur, glass_blur, motion_blur, zoom_blur
from harness.corrupt.digital import contrast, elastic_transform, jpeg_compression, pixelate
from harness.corrupt.draws import Draws, Floats, Integers
from harness.corrupt.noise import gaussian_noise, impulse_noise, shot_noise
from harness.corrupt.severities import SEVERITIES, parameters
from harness.corrupt.weather import brightness, fog, frost, snow

VERSION = 1
"""Part of the identity of an evaluation: raise it when a pixel of any corruption changes."""
CORRUPTIONS: dict[str, Callable[[Floats, Any, Draws], Floats]] = {
    function.__name__: function
    for function in (
        gaussian_noise, shot_noise, impulse_noise, defocus_blur, glass_blur, motion_blur,
        zoom_blur, snow, frost, fog, brightness, contrast, elastic_transform, pixelate,
        jpeg_compression,
    )
}  # fmt: skip
PIXELS_AT_ONCE = 1 << 16  # of the images that are corrupted together: they stay in the cache
ROUNDING = 1e-6  # of a level: differences of last bits between machines do not reach the pixels


def corrupt(
    images: NDArray[np.uint8], ids: Integers, corruption: str, severity: int
) -> NDArray[np.uint8]:
    """Return corrupted images, uint8 [N, H, W, 3], of such images with the ids [N].

    An image depends on its pixels, its id, the corruption and the severity only. Values are cut off
    to whole levels, as in the published sets.
    """
    strength = parameters(min(images.shape[1:3]))[corruption][SEVERITIES.index(severity)]
    function = CORRUPTIONS[corruption]
    at_once = max(1, PIXELS_AT_ONCE // (images.shape[1] * images.shape[2]))
    corrupted = np.empty_like(images)
    for start in range(0, len(images), at_once):
        part = slice(start, start + at_once)
        draws = Draws(corruption, severity, ids[part])
        changed = function(images[part] / 255.0, strength, draws)
        corrupted[part] = np.clip(changed * 255.0 + ROUNDING, 0, 255)
    return corrupted
