"""Noise of single pixels and channels: Gaussian, Poisson, salt and pepper.

Functions take images, float64 [N, H, W, 3] in [0, 1], and return such images; values outside of
[0, 1] are clipped by the caller.
"""

from __future__ import annotations

import functools

import numpy as np
from scipy.special import pdtr

from harness.corrupt.draws import Draws, Floats

LEVELS = 256  # of a channel


def gaussian_noise(images: Floats, deviation: float, draws: Draws) -> Floats:
    """Add normal noise."""
    return images + draws.normal(0.0, deviation, *images.shape[1:])


def shot_noise(images: Floats, photons: float, draws: Draws) -> Floats:
    """Replace each channel by a Poisson count with the mean `photons` times it, over `photons`."""
    levels = np.rint(images * (LEVELS - 1))
    table, counts = _poisson_tables(photons)
    found = np.searchsorted(table, levels + draws.uniform(0, 1, *images.shape[1:]), side="right")
    return (found - levels * counts) / photons


@functools.lru_cache(maxsize=16)
def _poisson_tables(photons: float) -> tuple[Floats, int]:
    """Return the distribution functions of the counts of all levels, and the values of each.

    That of level i is raised by i, so that one sorted array holds all of them. A count is the
    number of values that are not above a uniform number.
    """
    counts = int(photons + 12 * np.sqrt(photons) + 30)  # beyond it lies less than 2^-32
    means = photons * np.arange(LEVELS) / (LEVELS - 1)
    table = pdtr(np.arange(counts)[None, :], means[:, None])
    table[:, -1] = 1.0
    return np.asarray((table + np.arange(LEVELS)[:, None]).ravel()), counts


def impulse_noise(images: Floats, share: float, draws: Draws) -> Floats:
    """Set a share of the channels to 0 or 1, each with probability one half."""
    is_changed = draws.uniform(0, 1, *images.shape[1:]) < share
    salt = draws.uniform(0, 1, *images.shape[1:]) < 0.5
    return np.where(is_changed, salt.astype(np.float64), images)
