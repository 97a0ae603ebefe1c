"""What each magnitude of a grid loses against the best one, by the curves of `unimodal`.

Untrained magnitudes take part: a smooth curve through the trained ones says what they may be worth.
The curves, the priors and the likelihood are those of `unimodal`, where they are derived.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln, logsumexp, stdtr

from harness.statistics.unimodal import (
    LOG_PRIOR,
    LOG_RATIO_PRIOR,
    POSITIONS,
    centred,
    curves_of,
    fit,
)

STEP = 2  # of the positions of the optimum, every second, 0.02 apart, is as good as all
NEGLIGIBLE = 1e-5  # posterior probability of a curve, relative to the likeliest, that is left out
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Losses:
    """The posterior of what candidates lose against the best candidate; arrays [candidates]."""

    best: Array  # probability of being the best
    mean: Array  # expected loss, in the unit of the means
    exceeds: Callable[[int, float], float]
    """Probability that a candidate, by its index, loses more than a margin > 0."""


def losses(
    candidates: Sequence[float | None],
    means: Sequence[float],
    errors: Sequence[float],
    freedom: float,
) -> Losses:
    """Return the posterior of the loss of each candidate.

    A candidate is a magnitude in [0, 1], or None for `none`, which is not a point of the curve: it
    must be trained, and has a mean of its own. `means` has the mean of each candidate, of which
    more is better, NaN for one that is not trained; of the curve, three must be, or both of two.
    `errors` are the standard errors, estimated with `freedom` > 0 degrees of freedom.

    Given a curve, a candidate on it loses depth * gap against the highest one on it, and the
    depth has Student's t distribution, cut off at 0 (`unimodal.Fit`). What `none` gains over the
    highest has Student's t distribution, too. So probabilities and means have closed forms, which
    are averaged over the curves. That `none` may be better by the margin is added to the
    probability of another candidate (the union bound).
    """
    y, deviations = np.asarray(means, float), np.asarray(errors, float)
    on_curve = np.array([magnitude is not None for magnitude in candidates])
    magnitudes = tuple(magnitude for magnitude in candidates if magnitude is not None)
    is_trained = ~np.isnan(y)
    of_curve, errors_of_curve = (array[on_curve & is_trained] for array in (y, deviations))
    curves, log, t0, length, scale, is_positive, total = _likely_curves(
        magnitudes, is_trained[on_curve], of_curve, errors_of_curve, freedom
    )
    posterior = np.exp(log - logsumexp(log))
    highest, winner = curves.max(axis=1), curves.argmax(axis=1)
    depth = _mean_above_0(t0 / scale, total, is_positive) / is_positive * scale / length

    wins, lead = np.zeros(len(curves)), 0.0  # of `none` over the highest on the curve
    gain, error = np.full(len(curves), -np.inf), np.ones(len(curves))
    best, mean = np.zeros(len(y)), np.zeros(len(y))
    if not on_curve.all():
        _, weights = centred(of_curve, errors_of_curve)
        own, deviation = (float(array[~on_curve][0]) for array in (y, deviations))
        # the highest candidate of the curve, less the weighted mean of the trained ones
        above = highest - np.average(curves[:, is_trained[on_curve]], weights=weights, axis=1)
        gain = own - np.average(of_curve, weights=weights) - depth * above
        error = scale * np.sqrt(deviation**2 + 1 / weights.sum() + (above / length) ** 2)
        wins = stdtr(total, gain / error)
        lead = float(posterior @ (error * _mean_above_0(gain / error, total, wins)))
        best[~on_curve] = posterior @ wins
        mean[~on_curve] = lead - posterior @ gain
    best[on_curve] = np.bincount(winner, posterior * (1 - wins), len(magnitudes))
    mean[on_curve] = posterior @ (depth[:, None] * (highest[:, None] - curves)) + lead

    def exceeds(candidate: int, margin: float) -> float:
        if not on_curve[candidate]:
            return float(posterior @ stdtr(total, -(gain + margin) / error))
        gaps = highest - curves[:, int(on_curve[:candidate].sum())]
        with np.errstate(divide="ignore"):  # the margin is never exceeded where the gap is 0
            least_depth = margin / gaps
        by_curve = stdtr(total, (t0 - least_depth * length) / scale) / is_positive
        return float(posterior @ (by_curve + stdtr(total, (gain - margin) / error)))

    return Losses(best, mean, exceeds)


def _likely_curves(
    magnitudes: tuple[float, ...],
    is_trained: Array,
    means: Array,
    errors: Array,
    freedom: float,
) -> tuple[Array, Array, Array, Array, Array, Array, float]:
    """Return the curves that are not negligible, their log posterior, and the values of `Fit`."""
    y, weights = centred(means, errors)
    log_ratio = np.tile(LOG_RATIO_PRIOR, len(POSITIONS[::STEP]))
    of_exponent = [
        (
            curves.reshape(len(POSITIONS), -1, len(magnitudes))[::STEP].reshape(
                -1, len(magnitudes)
            ),
            log_ratio + prior,
        )
        for curves, prior in zip(curves_of(magnitudes), LOG_PRIOR, strict=True)
    ]
    if len(magnitudes) == 2:  # one of the two is the higher
        of_exponent = [(-np.eye(2), np.zeros(2))]
    fits = [fit(curves[:, is_trained], y, weights, freedom) for curves, _ in of_exponent]
    log = np.concatenate([f.log + prior for f, (_, prior) in zip(fits, of_exponent, strict=True)])
    kept = log > log.max() + np.log(NEGLIGIBLE)
    t0, length, scale, positive = (
        np.concatenate([getattr(f, name) for f in fits])[kept]
        for name in ("t0", "length", "scale", "positive")
    )
    curves = np.concatenate([curves for curves, _ in of_exponent])[kept]
    return curves, log[kept], t0, length, scale, positive, fits[0].total


def _mean_above_0(location: Array, freedom: float, positive: Array) -> Array:
    """Return the integral of x over x > 0, for x - location of Student's t distribution.

    `positive` is F(location), the probability that x is above 0. The integral is
    location * F(location) + (freedom + location^2) / (freedom - 1) * f(location), with the density
    f and the distribution function F. With one degree of freedom it is infinite; then two are
    assumed.
    """
    if freedom < 2:
        freedom, positive = 2.0, stdtr(2.0, location)
    log_constant = gammaln((freedom + 1) / 2) - gammaln(freedom / 2) - np.log(np.pi * freedom) / 2
    density = np.exp(log_constant - (freedom + 1) / 2 * np.log1p(location**2 / freedom))
    tail = (freedom + location**2) / (freedom - 1) * density
    return np.asarray(location * positive + tail)
