"""Spearman's rank correlation of few pairs, with an exact p-value."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from harness.statistics.estimates import NO_ESTIMATE, NORMAL_QUANTILE, Estimate, mean, t_tails

FEWEST_PAIRS = 5
EXACT_PAIRS = 8  # up to which all permutations are counted


def rank_correlation(
    x: Sequence[float],
    y: Sequence[float],
    given: Sequence[float] | None = None,
    groups: Sequence[Hashable] | None = None,
) -> Estimate:
    """Return Spearman's rho with mean ranks for ties; `given` a third series, the partial one.

    Pairs of one of the `groups` are not independent: their means count as one pair.

    The interval is that of Fisher's z with the variance of Bonett and Wright (2000), transformed
    back, so that it stays within -1 to 1. The p-value is exact for up to 8 pairs, over all
    permutations: Student's t, the approximation for more, took 9 % of 5 pairs of noise for a
    correlation. That of the partial one is Student's t with the degrees of freedom that are left.
    The error is that of Fisher's z where there is no correlation. All NaN for fewer than 5 pairs,
    or where one side is constant or follows from `given`.
    """
    count = len(x if groups is None else set(groups))
    if count < FEWEST_PAIRS:
        return NO_ESTIMATE
    conditions = 0 if given is None else min(2, len(set(given)) - 1)
    a, b = (_residuals(_ranks(side), None if given is None else _ranks(given)) for side in (x, y))
    if groups is not None:
        a, b = _group_means(a, groups), _group_means(b, groups)
    if min(np.ptp(a), np.ptp(b)) < 1e-9:
        return NO_ESTIMATE
    rho, freedom = float(np.corrcoef(a, b)[0, 1]), count - 2 - conditions
    is_perfect = abs(rho) > 1 - 1e-12
    if freedom < 2:
        return NO_ESTIMATE
    if count <= EXACT_PAIRS and not conditions:
        p = _exact_p_value(a, b)
    elif is_perfect:
        p = 2 / math.factorial(count)  # two of all orders are perfect
    else:
        p = t_tails(rho * math.sqrt(freedom / (1 - rho**2)), freedom)
    error = 1 / math.sqrt(freedom - 1)
    if is_perfect:  # Fisher's z is infinite
        return Estimate(rho, math.nan, math.nan, p, error, freedom)
    half = NORMAL_QUANTILE * math.sqrt(1 + rho**2 / 2) * error
    low, high = (math.tanh(math.atanh(rho) + side * half) for side in (-1, 1))
    return Estimate(rho, low, high, p, error, freedom)


def _group_means(values: NDArray[np.float64], groups: Sequence[Hashable]) -> NDArray[np.float64]:
    """Return the mean of each group, less the mean of these."""
    number_of = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    numbers = [number_of[group] for group in groups]
    means = np.bincount(numbers, values) / np.bincount(numbers)
    return np.asarray(means - means.mean())


def _residuals(ranks: Sequence[float], given: Sequence[float] | None) -> NDArray[np.float64]:
    """Return what a parabola through the ranks of `given` leaves of `ranks`; without it, all."""
    degree = 0 if given is None else min(2, len(set(given)) - 1)
    x = np.zeros(len(ranks)) if given is None else np.asarray(given) - mean(given)
    design = np.vander(x, degree + 1)
    y = np.asarray(ranks)
    return np.asarray(y - design @ np.linalg.lstsq(design, y)[0])


def _exact_p_value(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Return the share of the orders of `b` whose |rho| with `a` is at least as large.

    Both have a mean of 0.
    """
    products = np.abs(b[_orders(len(b))] @ a)
    return float(np.mean(products >= abs(b @ a) - 1e-9))


@functools.cache
def _orders(count: int) -> NDArray[np.intp]:
    """Return every order of `count` items: int [count!, count]."""
    return np.array(list(itertools.permutations(range(count))))


def _ranks(values: Sequence[float]) -> list[float]:
    """Return the rank of each value, from 1; equal values share the mean of their ranks."""
    _, at, repeats = np.unique(np.asarray(values, float), return_inverse=True, return_counts=True)
    last = np.cumsum(repeats)
    return list(map(float, (last - (repeats - 1) / 2)[at]))
