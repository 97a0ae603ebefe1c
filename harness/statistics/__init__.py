"""Statistics of few seeds: plain numbers in, plain numbers out; no tables, no files.

`estimates` has the pooled spread, t intervals, tests and their correction; `gaussian_process` the
smooth optimum; `spearman` the rank correlation. Only NumPy and SciPy are needed.
"""

from harness.statistics.estimates import (
    ALPHA,
    LEVEL,
    NO_ESTIMATE,
    UNKNOWN,
    Estimate,
    Spread,
    contrast,
    half_width,
    holm,
    mean,
    pooled,
    seeds_to_settle,
    standard_error,
    t_quantile,
    t_tails,
    ties,
)
from harness.statistics.gaussian_process import Optimum, optimum
from harness.statistics.spearman import FEWEST_PAIRS, rank_correlation

__all__ = [
    "ALPHA", "FEWEST_PAIRS", "LEVEL", "NO_ESTIMATE", "UNKNOWN", "Estimate", "Optimum", "Spread",
    "contrast", "half_width", "holm", "mean", "optimum", "pooled", "rank_correlation",
    "seeds_to_settle", "standard_error", "t_quantile", "t_tails", "ties",
]  # fmt: skip
