"""Where an accuracy curve has its maximum, and whether the maximum drifts from size to size.

The curve of a size is taken to rise up to its optimum o and to fall after it:

    accuracy(m) = level - depth * sqrt(ratio) * (o - m)^p   below the optimum
    accuracy(m) = level - depth / sqrt(ratio) * (m - o)^p   above it

Exponent 1 is a kink and 2 a parabola; the ratio lets one side be up to 32 times as steep as the
other. Optimum, ratio and exponent are integrated over a grid of values, with the priors below;
level, depth (>= 0) and the size of the noise, which is estimated from few seeds, are integrated in
closed form, which gives Student's t (`fit`).

The family describes a curve near its top. Therefore a cell that lies d below the best mean counts
with an additional error of 0.2 d. Otherwise one magnitude at which training collapses would move
the optimum. The rates of errors are in `docs/analysis.md`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp, stdtr

from harness.statistics.estimates import LEVEL

FEWEST_MAGNITUDES = 3  # two means fit a maximum at any position equally well
POSITIONS = np.linspace(0.0, 1.0, 101)  # of the optimum, each as probable as any other
EXPONENTS = {1.0: 0.4, 1.5: 0.2, 2.0: 0.4}  # with their prior probabilities
LOG2_RATIOS = np.arange(-5.0, 6.0)
RATIO_DEVIATION = 3.0  # standard deviation of the normal prior of log2(ratio)
LOG_PRIOR = np.log(list(EXPONENTS.values()))  # [exponents]
LOG_RATIO_PRIOR = -0.5 * (LOG2_RATIOS / RATIO_DEVIATION) ** 2  # [ratios], up to a constant
MISFIT = 0.2  # error of the family at a cell, as a share of its distance from the best mean
DRAWS = 20_000
"""Draws of a drift. A share of 0.05 of them has a standard error of 0.0015."""

Evidence = NDArray[np.float64]
"""Logarithm of the probability of the data, [exponents, positions of the optimum]."""


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


@dataclass(frozen=True)
class Drift:
    """How far the optimum moves from one size to the next, in units of the magnitude's scale."""

    at: float  # median
    low: float  # 95 % interval
    high: float
    rises: float  # probability that the drift is above 0
    falls: float  # probability that it is below 0


def evidence(
    magnitudes: Sequence[float], means: Sequence[float], errors: Sequence[float], freedom: float
) -> Evidence | None:
    """Return how well the optimum at each position explains the means of one size.

    A cell has a magnitude in [0, 1] (`none` counts as 0), a mean of which more is better, and its
    standard error, estimated with `freedom` degrees of freedom. Returns None for fewer than 3
    magnitudes, or without degrees of freedom, when the noise is unknown.
    """
    if len(set(magnitudes)) < FEWEST_MAGNITUDES or not freedom > 0:
        return None
    y, weights = centred(means, errors)
    logs = []
    for curves in curves_of(tuple(magnitudes)):
        by_ratio = fit(curves, y, weights, freedom).log.reshape(len(POSITIONS), -1)
        weighted = by_ratio + LOG_RATIO_PRIOR - logsumexp(LOG_RATIO_PRIOR)
        logs.append(logsumexp(weighted, axis=1))
    return np.array(logs)


def centred(
    means: Sequence[float] | NDArray[np.float64], errors: Sequence[float] | NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the means of cells less their weighted mean, and the weights, 1 / variance."""
    y = np.asarray(means, float)
    # Where all seeds agree the errors are 0; then the curve passes through the means.
    least_errors = np.maximum(np.asarray(errors, float), 1e-9)
    weights = 1 / (least_errors**2 + (MISFIT * (y.max() - y)) ** 2)
    return y - np.average(y, weights=weights), weights


class Fit(NamedTuple):
    """How well curves of one exponent explain the means of one size; arrays are [curves].

    Given a curve, depth * length - t0 has Student's t distribution with `total` degrees of freedom,
    times `scale`, cut off where the depth is below 0.
    """

    log: NDArray[np.float64]  # logarithm of the likelihood, up to a constant
    t0: NDArray[np.float64]  # least-squares depth, in units of its standard error
    length: NDArray[np.float64]  # 1 / standard error of the depth
    scale: NDArray[np.float64]
    positive: NDArray[np.float64]  # probability of a depth above 0, before it is cut off there
    total: float  # degrees of freedom


def fit(
    curves: NDArray[np.float64],
    y: NDArray[np.float64],
    weights: NDArray[np.float64],
    freedom: float,
) -> Fit:
    """Return how well each curve explains the means of one size.

    `curves` are [curves, cells], `y` the means of n cells less their weighted mean. Up to a
    constant, the likelihood of a curve x is that of a linear model with three unknowns:

        y[i] = level + depth * x[i] + noise of variance s^2 / weights[i],  depth >= 0

    s is the ratio of the true errors to those that were estimated: freedom / s^2 has a chi-squared
    distribution. The unknowns are integrated out one after the other.

    1. Level, with a flat prior: x is replaced by its difference from its weighted mean, and
       s^-(n - 1) exp(-sum(weights * (y - depth * x)^2) / (2 s^2)) is left.
    2. Depth. In units of its standard error it is t = depth * length, with length^2 =
       sum(weights * x^2); its least-squares value is t0 = sum(weights * x * y) / length. The sum of
       squares is residual + (t - t0)^2, with residual = sum(weights * y^2) - t0^2. The integral
       over t from 0, with a flat prior, is s^-(n - 2) exp(-residual / (2 s^2)) Phi(t0 / s), where
       Phi is the normal distribution function.
    3. s, with the prior 1 / s: the estimated errors contribute s^-freedom exp(-freedom / (2 s^2)).
       Given the exponentials, (freedom + residual) / s^2 has a chi-squared distribution with
       total = freedom + n - 2 degrees of freedom. A normal variable times s is Student's t times
       sqrt((freedom + residual) / total), so the mean of Phi(t0 / s) is the distribution function
       of Student's t at t0 / sqrt((freedom + residual) / total), and the integral is that times
       (freedom + residual)^(-total / 2).
    """
    curves = curves - np.average(curves, weights=weights, axis=1)[:, None]
    length = np.sqrt(curves**2 @ weights)
    t0 = (curves @ (weights * y)) / length
    residual = np.maximum((weights * y**2).sum() - t0**2, 0.0)
    total = freedom + len(y) - 2
    scale = np.sqrt((freedom + residual) / total)
    positive = stdtr(total, t0 / scale)
    with np.errstate(divide="ignore"):  # log(0) of an impossible depth is minus infinity
        log = -total / 2 * np.log1p(residual / freedom) + np.log(positive)
    return Fit(log, t0, length, scale, positive, total)


@lru_cache(maxsize=64)
def curves_of(magnitudes: tuple[float, ...]) -> list[NDArray[np.float64]]:
    """Return the curves of depth 1 and level 0 of each exponent, [positions * ratios, cells]."""
    x = np.array(magnitudes)
    below = np.maximum(POSITIONS[:, None] - x, 0)[:, None, :]  # [positions, 1, cells]
    above = np.maximum(x - POSITIONS[:, None], 0)[:, None, :]
    steepness = np.sqrt(2.0**LOG2_RATIOS)[:, None]  # [ratios, 1]
    curves = (-(steepness * below**p + above**p / steepness) for p in EXPONENTS)
    return [of_exponent.reshape(-1, len(x)) for of_exponent in curves]


def optimum(log: Evidence, ends: tuple[float, float], bracket: tuple[float, float]) -> Optimum:
    """Return the best magnitude, cut off at the `ends` of a grid.

    The interval is widened to hold `bracket`, the magnitudes next to those that tie with the best.
    Where the curve is not of the family (it collapses, or has a cliff at its top), the 95 % of the
    posterior can miss the optimum. The bracket holds it there, too.
    """
    cumulative = np.cumsum(_normalised(logsumexp(log + LOG_PRIOR[:, None], axis=0)))
    quantiles = ((1 - LEVEL) / 2, 0.5, (1 + LEVEL) / 2)
    indices = np.minimum(np.searchsorted(cumulative, quantiles), len(POSITIONS) - 1)
    low, at, high = POSITIONS[indices]
    widened = np.clip([min(low, bracket[0]), at, max(high, bracket[1])], *ends)
    low, at, high = (float(place) for place in widened)
    return Optimum(at, low, high, ends)


def drift(
    sizes: Sequence[Evidence], ranks: Sequence[float], draws: Sequence[int] | None = None
) -> Drift:
    """Return the drift of the optimum per step of rank, over sizes that are independent.

    `draws` has a number for each size. Sizes with the same number take the same random numbers, as
    if they had one error in common; then more of them do not make the drift more certain. By
    default all sizes are independent.

    The drift is the slope of the least-squares line of the optima over `ranks`, which sum to 0
    (within each stratum, where there are several). It is computed twice: with one exponent for all
    sizes, and with an exponent for each. `rises` and `falls` are the lower ones of the two
    analyses; median and interval are those of the analysis with the less certain sign.
    """
    log = np.stack(sizes)  # [sizes, exponents, positions]
    generator = np.random.default_rng(3)
    # both analyses take these numbers, so that they differ in the exponents only
    number = np.arange(len(sizes)) if draws is None else np.asarray(draws)
    uniform = generator.random((number.max() + 1, DRAWS))[number]
    by_exponent = logsumexp(log, axis=2)  # [sizes, exponents]
    common = _normalised(by_exponent.sum(axis=0) + LOG_PRIOR)
    exponent = generator.choice(len(EXPONENTS), DRAWS, p=common)
    common_exponent = np.tile(exponent, (len(sizes), 1))
    own = [_normalised(row + LOG_PRIOR) for row in by_exponent]
    own_exponent = np.array([generator.choice(len(EXPONENTS), DRAWS, p=p) for p in own])
    weights = np.asarray(ranks, float) / np.square(ranks).sum()
    analyses = [
        _summary(weights @ _positions(log, exponents, uniform))
        for exponents in (common_exponent, own_exponent)
    ]
    unsure = min(analyses, key=lambda d: max(d.rises, d.falls))
    rises, falls = (min(d.rises for d in analyses), min(d.falls for d in analyses))
    return Drift(unsure.at, unsure.low, unsure.high, rises, falls)


def _positions(
    log: NDArray[np.float64], exponents: NDArray[np.int64], uniform: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return optima drawn from the posterior, [sizes, draws], given the drawn exponents."""
    places = np.empty_like(uniform)
    for size, table in enumerate(log):
        for exponent, row in enumerate(table):
            drawn = exponents[size] == exponent
            cumulative = np.cumsum(_normalised(row))
            index = np.searchsorted(cumulative, uniform[size, drawn])
            places[size, drawn] = POSITIONS[np.minimum(index, len(POSITIONS) - 1)]
    return places


def _summary(slopes: NDArray[np.float64]) -> Drift:
    low, at, high = np.quantile(slopes, [(1 - LEVEL) / 2, 0.5, (1 + LEVEL) / 2])
    rounding = 1e-9  # of a sum of positions
    rises, falls = float((slopes > rounding).mean()), float((slopes < -rounding).mean())
    return Drift(float(at), float(low), float(high), rises, falls)


def _normalised(log: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return probabilities from their logarithms up to a constant."""
    return np.asarray(np.exp(log - logsumexp(log)))
