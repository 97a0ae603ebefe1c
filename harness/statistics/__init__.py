"""Statistics of few seeds: plain numbers in, plain numbers out; no tables, no files.

`estimates` has the spreads, t intervals, tests and their correction; `choice` the best magnitude of
a size; `unimodal` the smooth optimum and its drift over sizes; `loss` what each magnitude loses
against the best; `spearman` the rank correlation; `classes` how classes differ, and calibration.
Only NumPy and SciPy are needed.
"""

from harness.statistics.choice import choose, has_curve, highest_mean
from harness.statistics.classes import ClassCounts, calibration_error
from harness.statistics.estimates import (
    ALPHA,
    NO_ESTIMATE,
    NORMAL_QUANTILE,
    UNKNOWN,
    Estimate,
    Spread,
    contrast,
    detectable,
    difference,
    half_width,
    holm,
    mean,
    pooled,
    spreads,
    t_quantile,
    t_tails,
    ties,
)
from harness.statistics.loss import Losses, losses
from harness.statistics.spearman import FEWEST_PAIRS, rank_correlation
from harness.statistics.unimodal import (
    DRAWS,
    FEWEST_MAGNITUDES,
    Evidence,
    Optimum,
    drift,
    evidence,
    optimum,
)

__all__ = [
    "ALPHA", "DRAWS", "FEWEST_MAGNITUDES", "FEWEST_PAIRS", "NORMAL_QUANTILE", "NO_ESTIMATE",
    "UNKNOWN", "ClassCounts", "Estimate", "Evidence", "Losses", "Optimum", "Spread",
    "calibration_error", "choose", "contrast", "detectable", "difference", "drift", "evidence",
    "half_width", "has_curve", "highest_mean", "holm", "losses", "mean", "optimum", "pooled",
    "rank_correlation", "spreads", "t_quantile", "t_tails", "ties",
]  # fmt: skip
