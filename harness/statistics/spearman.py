"""Spearman's rank correlation of few pairs, with an exact p-value."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from harness.statistics.estimates import LEVEL, NO_ESTIMATE, Estimate, mean, t_quantile, t_tails

FEWEST_PAIRS = 5
EXACT_PAIRS = 8  # up to which all permutations are counted


def rank_correlation(x: Sequence[float], y: Sequence[float]) -> Estimate:
    """Return Spearman's rho with mean ranks for ties; interval by Bonett and Wright (2000).

    The p-value is exact for up to 8 pairs, over all permutations: Student's t, the approximation
    for more, took 9 % of 5 pairs of noise for a correlation. All NaN for fewer than 5 pairs, or
    where one side is constant.
    """
    count = len(x)
    if count < FEWEST_PAIRS or len(set(x)) == 1 or len(set(y)) == 1:
        return NO_ESTIMATE
    a, b = _ranks(x), _ranks(y)
    rho, freedom = float(np.corrcoef(a, b)[0, 1]), count - 2
    is_perfect = abs(rho) > 1 - 1e-12
    if count <= EXACT_PAIRS:
        p = _exact_p_value(a, b)
    elif is_perfect:
        p = 2 / math.factorial(count)  # two of all orders are perfect
    else:
        p = t_tails(rho * math.sqrt(freedom / (1 - rho**2)), freedom)
    if is_perfect:  # the delta method would give an interval of no width
        return Estimate(rho, math.nan, p, math.nan, freedom)
    # delta method on Fisher's z, whose variance is (1 + rho^2 / 2) / (n - 3)
    error = (1 - rho**2) * math.sqrt((1 + rho**2 / 2) / (count - 3))
    return Estimate(rho, t_quantile(0.5 + LEVEL / 2, math.inf) * error, p, error, freedom)


def _exact_p_value(a: Sequence[float], b: Sequence[float]) -> float:
    """Return the share of the orders of `b` whose |rho| with `a` is at least as large."""
    deviations, other = np.asarray(a) - mean(a), np.asarray(b) - mean(b)
    products = np.abs(other[_orders(len(b))] @ deviations)
    return float(np.mean(products >= abs(other @ deviations) - 1e-9))


@functools.cache
def _orders(count: int) -> NDArray[np.intp]:
    """Return every order of `count` items: int [count!, count]."""
    return np.array(list(itertools.permutations(range(count))))


def _ranks(values: Sequence[float]) -> list[float]:
    """Return the rank of each value, from 1; equal values share the mean of their ranks."""
    _, at, repeats = np.unique(np.asarray(values, float), return_inverse=True, return_counts=True)
    last = np.cumsum(repeats)
    return list(map(float, (last - (repeats - 1) / 2)[at]))
