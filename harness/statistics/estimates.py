"""Statistics for few seeds: one spread pooled over the cells of a size, t intervals from it.

A cell is the values of one setting over its seeds. With 3 seeds a percentile bootstrap covers 74 %
where it says 95 %, a t interval 94 %; pooling over the cells of one size gives the spread many
degrees of freedom. Runs that share a seed are treated as independent, because the noise of a
training is mostly chaos, not its seed (Jordan 2024).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy.special import stdtr, stdtrit

LEVEL = 0.95  # of intervals
ALPHA = 0.05  # of tests
POWER = 0.8


@dataclass(frozen=True)
class Spread:
    """A standard deviation and its degrees of freedom: 0 of them with one seed per cell."""

    deviation: float
    freedom: float


UNKNOWN = Spread(math.nan, 0)


@dataclass(frozen=True)
class Estimate:
    """An effect with the half-width of its 95 % interval and two-sided p-value; NaN if unknown."""

    effect: float
    half: float
    p: float
    error: float  # standard error
    freedom: float  # degrees of freedom


NO_ESTIMATE = Estimate(math.nan, math.nan, math.nan, math.nan, 0)


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


def standard_error(spread: Spread, *counts: int) -> float:
    """Return the standard error of a mean over counts[0], or of a difference of two means."""
    return spread.deviation * math.sqrt(sum(1.0 / count for count in counts))


def half_width(spread: Spread, *counts: int) -> float:
    """Return half of the 95 % t interval of a mean over counts[0], or of a difference of two means.

    NaN where no cell has two seeds.
    """
    if not spread.freedom:
        return math.nan
    return t_quantile(0.5 + LEVEL / 2, spread.freedom) * standard_error(spread, *counts)


def ties(cells: Mapping[object, Sequence[float]], best: object, spread: Spread) -> list[object]:
    """Return the keys of cells whose mean is statistically indistinguishable from that of `best`.

    `best`, the key of the highest or of the lowest mean, is one of them. One-sided t tests with
    the pooled spread at 5 %, Bonferroni over the other cells. Without degrees of freedom nothing
    can be distinguished: all keys.
    """
    if not spread.freedom or len(cells) == 1:
        return list(cells)
    bound = t_quantile(1 - (1 - LEVEL) / (len(cells) - 1), spread.freedom)
    top = cells[best]
    tied = []
    for key, cell in cells.items():
        difference = abs(mean(top) - mean(cell))
        if key == best or difference <= bound * standard_error(spread, len(top), len(cell)):
            tied.append(key)
    return tied


def contrast(groups: Sequence[Sequence[tuple[float, Sequence[float]]]]) -> Estimate:
    """Return the weighted sum of cell means with its t interval; a cell is (weight, values).

    Each group (the cells of one size) has its own spread, because small models scatter more than
    large ones; the degrees of freedom are Satterthwaite's (1946). A group in which no cell has two
    seeds takes the spread pooled over all groups.
    """
    effect = math.fsum(weight * mean(cell) for group in groups for weight, cell in group)
    overall = pooled([cell for group in groups for _, cell in group])
    if not overall.freedom:
        return Estimate(effect, math.nan, math.nan, math.nan, 0)
    parts = []  # of each group: its share of the variance, and degrees of freedom
    for group in groups:
        own = pooled([cell for _, cell in group])
        spread = own if own.freedom else overall
        leverage = math.fsum(weight**2 / len(cell) for weight, cell in group)
        parts.append((spread.deviation**2 * leverage, spread.freedom))
    variance = math.fsum(part for part, _ in parts)
    error = math.sqrt(variance)
    if not variance:  # repeats that agree to the last bit
        return Estimate(effect, 0.0, 0.0 if effect else 1.0, 0.0, overall.freedom)
    freedom = variance**2 / math.fsum(part**2 / degrees for part, degrees in parts)
    half = t_quantile(0.5 + LEVEL / 2, freedom) * error
    return Estimate(effect, half, t_tails(effect / error, freedom), error, freedom)


def seeds_to_settle(estimate: Estimate, seeds: float, tests: int = 1) -> float:
    """Return the seeds per cell that would detect an effect of this size with 80 % power at 5 %.

    Extrapolates the error from `seeds` seeds; Student's t with the degrees of freedom that so many
    seeds give, and the 5 % shared by as many `tests` as are corrected together. Infinite for an
    effect of 0, NaN where the error is unknown.
    """
    if not estimate.freedom or not seeds > 1:
        return math.nan
    if not estimate.effect:
        return math.inf
    error_ratio = (estimate.error / estimate.effect) ** 2 * seeds
    freedom_per_seed = estimate.freedom / (seeds - 1)

    def required(count: float) -> float:
        freedom = freedom_per_seed * (count - 1)
        alpha = (1 - LEVEL) / max(tests, 1)
        quantiles = t_quantile(1 - alpha / 2, freedom) + t_quantile(POWER, freedom)
        return error_ratio * quantiles**2

    count = max(2, math.ceil(required(math.inf)))
    while count < required(count):  # the quantiles fall towards those of the normal distribution
        count += 1
    return float(count)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p-values adjusted by Holm (1979), in the order given; NaN are not counted."""
    ascending = sorted((p, at) for at, p in enumerate(p_values) if not math.isnan(p))
    adjusted, highest = list(p_values), 0.0
    for rank, (p, at) in enumerate(ascending):
        highest = max(highest, min(1.0, p * (len(ascending) - rank)))
        adjusted[at] = highest
    return adjusted
