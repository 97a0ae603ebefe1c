"""The smooth optimum: an estimate of the best magnitude, also between the magnitudes of a grid.

A Gaussian process is fitted to the cell means (Matern 5/2 kernel, constant mean). The noise of the
means is estimated from the seeds. The amplitude and length of the kernel are integrated out over a
grid of values. Curves are drawn from the posterior, and the quantiles of the places of their maxima
give the median and the interval of the optimum (Rasmussen and Williams 2006, 2.2 and 5.4.1).

A parabola is the usual choice. Where a curve falls more steeply on one side, its intervals are
narrow and wrong: with 6 magnitudes and 3 seeds, its 95 % interval contained the optimum in 0 % of
simulations, and that of the Gaussian process in 98 % (`docs/analysis.md`). The optimum is not
extrapolated: where the interval contains an end of the grid, the optimum is censored there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from harness.statistics.estimates import LEVEL, Spread

POINTS = 61  # magnitudes, both ends included, at which a drawn curve is evaluated
DRAWS = 400  # curves drawn from the posterior
LENGTHS = (0.3, 0.5, 0.8, 1.3, 2.0, 3.5)  # shares of the grid's range
AMPLITUDES = (1, 2, 4, 8, 16, 32, 64, 128)  # multiples of the standard error of a cell mean
FEWEST = 3  # magnitudes; through two, a curve cannot have its maximum in between


@dataclass(frozen=True)
class Optimum:
    """Median (`at`) and 95 % interval (`low` to `high`) of the best magnitude."""

    at: float
    low: float
    high: float
    ends: tuple[float, float]  # the lowest and the highest magnitude of the grid

    @property
    def censored(self) -> tuple[bool, bool]:
        """Whether the interval reaches the lowest, and the highest, magnitude of the grid.

        The optimum may then lie below or above the grid.
        """
        return self.low <= self.ends[0], self.high >= self.ends[1]


class Fit(NamedTuple):
    """The Gaussian process with one amplitude and one length.

    Values are in units of the standard deviation between seeds.
    """

    precision: np.ndarray  # inverse covariance of the cell means
    log_determinant: float  # of that covariance
    smoother: np.ndarray  # matrix [POINTS, cells]: times the cell means, it gives the mean curve
    root: np.ndarray  # Cholesky factor of the curve's posterior covariance


def optimum(
    magnitudes: Sequence[float], means: Sequence[float], counts: Sequence[int], spread: Spread
) -> Optimum | None:
    """Return where the smooth curve through the cell means has its maximum.

    A cell has a magnitude (`magnitudes` rise), a mean, and a number of seeds (`counts`). Returns
    None for fewer than 3 magnitudes, or if no cell has two seeds, so that the noise is unknown.
    """
    if len(magnitudes) < FEWEST or not spread.freedom:
        return None
    x = np.asarray(magnitudes, dtype=float)
    # Where all seeds agree, the deviation is 0; then the curve passes through the means.
    scale = spread.deviation or 1e-9
    y = (np.asarray(means) - np.mean(means)) / scale
    generator = np.random.default_rng(3)
    normal = generator.standard_normal((DRAWS, POINTS))
    # The noise is itself an estimate: this scaling makes a Student-t process of the Gaussian one.
    tails = np.sqrt(spread.freedom / generator.chisquare(spread.freedom, DRAWS))
    fits = _fits(tuple(magnitudes), tuple(counts))
    degrees = spread.freedom + len(y) - 1
    likelihoods = [
        -degrees / 2 * math.log1p(y @ fit.precision @ y / spread.freedom) - fit.log_determinant / 2
        for fit in fits
    ]
    weights = np.exp(np.array(likelihoods) - max(likelihoods))
    # each fit gets a share of the draws in proportion to its weight
    stops = np.floor(np.cumsum(weights) / weights.sum() * DRAWS + 0.5).astype(int)
    maxima, start = [], 0
    for fit, stop in zip(fits, stops, strict=True):
        if stop > start:
            noise = (normal[start:stop] @ fit.root.T) * tails[start:stop, None]
            maxima.append((fit.smoother @ y + noise).argmax(axis=1))
            start = stop
    places = np.sort(np.concatenate(maxima)) / (POINTS - 1)
    ends = float(x[0]), float(x[-1])
    shares = np.quantile(places, [(1 - LEVEL) / 2, 0.5, (1 + LEVEL) / 2])
    # Share 1 is the upper end exactly. The formula could give a slightly smaller number, and the
    # optimum would not count as censored.
    low, at, high = (
        ends[1] if share >= 1 else ends[0] + (ends[1] - ends[0]) * float(share) for share in shares
    )
    return Optimum(at, low, high, ends)


@lru_cache(maxsize=64)
def _fits(magnitudes: tuple[float, ...], counts: tuple[int, ...]) -> list[Fit]:
    """Return a `Fit` for each length and amplitude.

    The fits depend on the magnitudes and counts only, not on the means, so they are cached.
    """
    x = np.array(magnitudes)
    unit = (x - x[0]) / (x[-1] - x[0])
    grid = np.linspace(0.0, 1.0, POINTS)
    noise = 1.0 / np.array(counts, dtype=float)
    fits = []
    for length in LENGTHS:
        for amplitude in AMPLITUDES:
            variance = amplitude**2 * noise.mean()
            constant = 100 * max(variance, 1.0)  # variance of the unknown constant mean
            cells = variance * _matern(unit, unit, length) + constant + np.diag(noise)
            cross = variance * _matern(grid, unit, length) + constant
            curve = variance * _matern(grid, grid, length) + constant
            precision = np.linalg.inv(cells)
            posterior = curve - cross @ precision @ cross.T
            root = _cholesky((posterior + posterior.T) / 2, 1e-6 * variance)
            _, log_determinant = np.linalg.slogdet(cells)
            fits.append(Fit(precision, float(log_determinant), cross @ precision, root))
    return fits


def _cholesky(covariance: np.ndarray, jitter: float) -> np.ndarray:
    """Return the Cholesky factor, with more `jitter` where rounding makes it necessary.

    That is the case for hundreds of magnitudes.
    """
    while True:
        try:
            return np.linalg.cholesky(covariance + jitter * np.eye(len(covariance)))
        except np.linalg.LinAlgError:
            jitter *= 10


def _matern(a: np.ndarray, b: np.ndarray, length: float) -> np.ndarray:
    """Return the Matern 5/2 kernel [a, b] between positions `a` and `b`, with variance 1."""
    scaled = math.sqrt(5) * np.abs(a[:, None] - b) / length
    return (1 + scaled + scaled**2 / 3) * np.exp(-scaled)
