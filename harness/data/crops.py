"""Where images are cropped: keyed by sample, so that every loader and every rank cuts the same box.

A box is a row (top, left, height, width) in pixels of the image as it is stored; the loader
resizes what is inside to a square. Each kind of crop is `boxes(ids, heights, widths)` -> [N, 4].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from harness import rng
from harness.data.official import Integers

RATIO = (3 / 4, 4 / 3)  # of width to height, log-uniform: torchvision's and FFCV's default
TRIES = 10
CENTRE_SHARE = 224 / 256  # of the shorter side that evaluation looks at


class Crop(Protocol):
    """A rule for boxes."""

    def boxes(self, ids: Integers, heights: Integers, widths: Integers) -> Integers:
        """The box of each image [N, 4]: top, left, height, width."""


@dataclass(frozen=True)
class Whole:
    """All of the image: for sets that are stored at the size they are used at."""

    def boxes(self, ids: Integers, heights: Integers, widths: Integers) -> Integers:
        """See `Crop.boxes`."""
        return np.stack([np.zeros_like(heights), np.zeros_like(heights), heights, widths], 1)


@dataclass(frozen=True)
class Centre:
    """The square in the middle whose side is `CENTRE_SHARE` of the shorter side (FFCV's)."""

    def boxes(self, ids: Integers, heights: Integers, widths: Integers) -> Integers:
        """See `Crop.boxes`."""
        side = np.maximum((CENTRE_SHARE * np.minimum(heights, widths)).astype(np.int64), 1)
        return np.stack([(heights - side) // 2, (widths - side) // 2, side, side], 1)


@dataclass(frozen=True)
class RandomResized:
    """`torchvision.transforms.RandomResizedCrop.get_params`, with a draw per try for each sample.

    Area: uniform in `scale`, a share of the image's; ratio: log-uniform in `RATIO`. After `TRIES`
    boxes that do not fit, the largest one in the middle whose ratio is allowed.
    """

    seed: int
    epoch: int
    scale: tuple[float, float]

    def boxes(self, ids: Integers, heights: Integers, widths: Integers) -> Integers:
        """See `Crop.boxes`."""
        found = np.empty((len(ids), 4), dtype=np.int64)
        left = np.arange(len(ids))
        # nearly all samples are settled by their first four words, so only the rest draw more
        for first, last in ((0, 1), (1, TRIES)):
            draws = rng.uniform(self.seed, "resized_crop", self.epoch, ids[left], 4 * last)
            for k in range(first, last):
                box, fits = self._try(draws[:, 4 * k : 4 * k + 4], heights[left], widths[left])
                found[left[fits]] = box[fits]
                left, draws = left[~fits], draws[~fits]
                if not len(left):
                    return found
        found[left] = _largest(heights[left], widths[left])
        return found

    def _try(
        self, draws: np.ndarray, heights: Integers, widths: Integers
    ) -> tuple[Integers, np.ndarray]:
        low, high = self.scale
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
    """The largest centred boxes with a ratio within `RATIO`."""
    width = np.minimum(widths, np.rint(heights * RATIO[1]).astype(np.int64))
    height = np.minimum(heights, np.rint(widths / RATIO[0]).astype(np.int64))
    return np.stack([(heights - height) // 2, (widths - width) // 2, height, width], 1)


def side_at(
    epoch: int, epochs: int, resolution: int, start: int | None, ramp: tuple[float, float]
) -> int:
    """Pixels of a training image's side in `epoch` of `epochs`: progressive resizing.

    From `start` (null: none of it) the side rises linearly, in multiples of 32, between the two
    shares of the training that `ramp` names, and ends at `resolution` (FFCV's ImageNet recipe).
    """
    if start is None:
        return resolution
    begin, end = (share * epochs for share in ramp)
    done = float(np.clip((epoch - begin) / max(end - begin, 1e-9), 0.0, 1.0))
    if done in (0.0, 1.0):
        return resolution if done else start
    return int(np.clip(round((start + (resolution - start) * done) / 32) * 32, start, resolution))
