"""Statistics for few seeds: a spread for each cell, t intervals from it, and ties of cells.

A cell is the values of one setting over its seeds. With 3 seeds a percentile bootstrap covers 74 %
where it says 95 %, a t interval 94 %; pooling over the cells of one size gives the spread many
degrees of freedom. The cells of a size can differ in noise, as under strong augmentation of small
models. Then each cell's spread is partly its own. Runs that share a seed are treated as
independent, because the noise of a training is mostly chaos, not its seed (Jordan 2024).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from scipy.special import chdtrc, digamma, ndtri, polygamma, stdtr, stdtrit

LEVEL = 0.95  # of intervals
ALPHA = 0.05  # of tests
NORMAL_QUANTILE = float(ndtri((1 + LEVEL) / 2))  # half of a 95 % interval, in standard errors
POWER = 0.8
UNEQUAL = 0.05  # p-value of Bartlett's test below which cells keep spreads of their own

Key = TypeVar("Key")


@dataclass(frozen=True)
class Spread:
    """A standard deviation and its degrees of freedom: 0 of them with one seed per cell."""

    deviation: float
    freedom: float


UNKNOWN = Spread(math.nan, 0)


@dataclass(frozen=True)
class Estimate:
    """An effect with its 95 % interval and two-sided p-value; NaN where they are unknown."""

    effect: float
    low: float
    high: float
    p: float
    error: float  # standard error
    freedom: float  # degrees of freedom
    choices: int = 1  # among which the effect was chosen; p and the interval allow for it

    @property
    def half(self) -> float:
        """Half of the width of the interval."""
        return (self.high - self.low) / 2


NO_ESTIMATE = Estimate(math.nan, math.nan, math.nan, math.nan, math.nan, 0)


def mean(values: Sequence[float]) -> float:
    """Return the arithmetic mean, summed exactly so that the order of rows does not matter."""
    return math.fsum(values) / len(values)


def pooled(cells: Sequence[Sequence[float]]) -> Spread:
    """Return the pooled standard deviation: sqrt(sum of squares within cells / (n - cells))."""
    squares, freedom = 0.0, 0
    for cell in cells:
        if len(cell) > 1:
            centre = mean(cell)
            squares += math.fsum((value - centre) ** 2 for value in cell)
            freedom += len(cell) - 1
    return Spread(math.sqrt(squares / freedom), freedom) if freedom else UNKNOWN


def t_quantile(probability: float, freedom: float) -> float:
    """Return a quantile of Student's t distribution; infinite `freedom` gives the normal one."""
    return float(stdtrit(freedom, probability))


def t_tails(t: float, freedom: float) -> float:
    """Return the two-sided p-value of Student's t."""
    return float(2 * stdtr(freedom, -abs(t)))


def spreads(cells: Mapping[Key, Sequence[float]]) -> dict[Key, Spread]:
    """Return the spread of each cell of one size.

    It is the pooled one, unless Bartlett's test (1937) finds at 5 % that the cells differ. Then
    each variance is the weighted mean of its own and of a typical one (Smyth 2004): the more the
    cells differ, the less the typical one weighs. UNKNOWN where no cell has two seeds.
    """
    shared = pooled(list(cells.values()))
    variances = {key: float(np.var(cell, ddof=1)) for key, cell in cells.items() if len(cell) > 1}
    if not shared.deviation > 0 or len(variances) < 2:
        return dict.fromkeys(cells, shared)
    degrees = np.array([len(cells[key]) - 1 for key in variances], float)
    # Rounded accuracies of a cell may be equal by chance, which does not show unequal noise. So a
    # variance counts as at least 1 % of the pooled one.
    logs = np.log(np.maximum(list(variances.values()), 0.01 * shared.deviation**2))
    if not _differ(logs, degrees, shared):
        return dict.fromkeys(cells, shared)
    # Smyth's e_g: the logarithms, corrected for their bias with few degrees of freedom.
    unbiased = logs - digamma(degrees / 2) + np.log(degrees / 2)
    excess = float(np.var(unbiased, ddof=1) - polygamma(1, degrees / 2).mean())
    if excess <= 0:
        return dict.fromkeys(cells, shared)
    prior = 2 * _inverse_trigamma(excess)  # degrees of freedom of the typical variance
    typical = math.exp(float(unbiased.mean()) + digamma(prior / 2) - math.log(prior / 2))
    result = {}
    for key, cell in cells.items():
        own = len(cell) - 1 if key in variances else 0  # degrees of freedom
        variance = (prior * typical + own * variances.get(key, 0.0)) / (prior + own)
        # never more than the seeds of all cells give
        result[key] = Spread(math.sqrt(variance), min(prior + own, shared.freedom))
    return result


def _differ(logs: np.ndarray, degrees: np.ndarray, shared: Spread) -> bool:
    """Return whether Bartlett's test rejects that these log variances are of equal noise."""
    statistic = shared.freedom * math.log(shared.deviation**2) - float(degrees @ logs)
    others = len(degrees) - 1
    correction = 1 + (float((1 / degrees).sum()) - 1 / shared.freedom) / (3 * others)
    return bool(chdtrc(others, statistic / correction) < UNEQUAL)


def _inverse_trigamma(value: float) -> float:
    """Return y with trigamma(y) = value, by Newton's method on 1 / trigamma (Smyth 2004)."""
    y = 0.5 + 1 / value
    for _ in range(20):
        trigamma = polygamma(1, y)
        y += trigamma * (1 - trigamma / value) / polygamma(2, y)
    return float(y)


def half_width(spread: Spread, count: int, choices: int = 1) -> float:
    """Return half of the 95 % t interval of a mean over `count` seeds; NaN where noise is unknown.

    If the cell was chosen among `choices` cells by other results of the same runs, which share its
    luck, the interval is Bonferroni's for all of them: it holds whichever was chosen.
    """
    if not spread.freedom:
        return math.nan
    return _quantile(spread.freedom, choices) * spread.deviation / math.sqrt(count)


def _quantile(freedom: float, choices: int = 1, sides: int = 2) -> float:
    return t_quantile(1 - (1 - LEVEL) / sides / choices, freedom)


def ties(
    cells: Mapping[Key, Sequence[float]], best: Key, noise: Mapping[Key, Spread], sign: int
) -> list[Key]:
    """Return the keys of cells whose mean is not shown to be worse than that of `best`.

    `best` is one of them. The tests are one-sided t tests at 5 %, corrected for the number of other
    cells (Bonferroni). Without degrees of freedom no test is possible, and all keys are returned.
    """
    if not noise[best].freedom or len(cells) == 1:
        return list(cells)
    top, tied = cells[best], []
    for key, cell in cells.items():
        error, freedom = _error([(1.0, top, noise[best]), (-1.0, cell, noise[key])])
        bound = _quantile(freedom, len(cells) - 1, sides=1)
        if key == best or sign * (mean(top) - mean(cell)) <= bound * error:
            tied.append(key)
    return tied


def _error(parts: Sequence[tuple[float, Sequence[float], Spread]]) -> tuple[float, float]:
    """Return the standard error of a weighted sum of cell means, and its degrees of freedom.

    A part is (weight, values, spread). Satterthwaite's formula would add the degrees of freedom.
    But the spreads of one size share data, so this is the harmonic mean, weighted by variance.
    """
    variances = [weight**2 * s.deviation**2 / len(cell) for weight, cell, s in parts]
    total = math.fsum(variances)
    if not total:
        return 0.0, max(spread.freedom for _, _, spread in parts)
    shares = (v / s.freedom for v, (_, _, s) in zip(variances, parts, strict=True))
    return math.sqrt(total), total / math.fsum(shares)


def contrast(
    groups: Sequence[Sequence[tuple[float, Sequence[float]]]], choices: int = 1
) -> Estimate:
    """Return the weighted sum of cell means with its t interval; a cell is (weight, values).

    Each group (the cells of one size) has its own spreads, because small models scatter more than
    large ones; the degrees of freedom are Satterthwaite's (1946). A group in which no cell has two
    seeds takes the spread pooled over all groups. `choices` is as in `half_width`.
    """
    effect = math.fsum(weight * mean(cell) for group in groups for weight, cell in group)
    overall = pooled([cell for group in groups for _, cell in group])
    if not overall.freedom:
        return replace(NO_ESTIMATE, effect=effect)
    errors = []  # of each group, with its degrees of freedom
    for group in groups:
        noise = spreads({at: cell for at, (_, cell) in enumerate(group)})
        parts = [
            (weight, cell, noise[at] if noise[at].freedom else overall)
            for at, (weight, cell) in enumerate(group)
        ]
        errors.append(_error(parts))
    return _estimate(effect, errors, choices)


def difference(
    cell: Sequence[float], spread: Spread, other: Sequence[float], other_spread: Spread
) -> Estimate:
    """Return the mean of `cell` minus that of `other`, two cells of one size, with its interval."""
    effect = mean(cell) - mean(other)
    if not spread.freedom:
        return replace(NO_ESTIMATE, effect=effect)
    return _estimate(effect, [_error([(1.0, cell, spread), (-1.0, other, other_spread)])])


def _estimate(effect: float, errors: Sequence[tuple[float, float]], choices: int = 1) -> Estimate:
    """Return the estimate of `effect`, a sum of independent parts.

    `errors` has the standard error and the degrees of freedom of each part.
    """
    variance = math.fsum(error**2 for error, _ in errors)
    if not variance:  # repeats that agree to the last bit
        freedom = max(freedom for _, freedom in errors)
        return Estimate(effect, effect, effect, 0.0 if effect else 1.0, 0.0, freedom)
    error = math.sqrt(variance)
    freedom = variance**2 / math.fsum(part**4 / degrees for part, degrees in errors)
    half = _quantile(freedom, choices) * error
    p = min(1.0, choices * t_tails(effect / error, freedom))
    return Estimate(effect, effect - half, effect + half, p, error, freedom, choices)


def detectable(estimate: Estimate, tests: int = 1, sides: int = 2) -> float:
    """Return the true effect that a test with this error would find with 80 % power at 5 %.

    The test has one or two `sides`. The 5 % are shared by as many `tests` as are corrected
    together, and by the choices of each. The result depends on the noise and on the number of
    seeds, not on the effect that was seen. NaN where the error is unknown.
    """
    if not estimate.freedom:
        return math.nan
    quantile = _quantile(estimate.freedom, max(tests, 1) * estimate.choices, sides)
    return (quantile + t_quantile(POWER, estimate.freedom)) * estimate.error


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p-values adjusted by Holm (1979), in the order given; NaN are not counted."""
    ascending = sorted((p, at) for at, p in enumerate(p_values) if not math.isnan(p))
    adjusted, highest = list(p_values), 0.0
    for rank, (p, at) in enumerate(ascending):
        highest = max(highest, min(1.0, p * (len(ascending) - rank)))
        adjusted[at] = highest
    return adjusted
