"""Claim C1: what a teacher finds difficult lowers accuracy."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from analysis.cells import cells_per_size
from analysis.claim_base import Claim, Effect, Selection, Untestable, rows_that_differ
from analysis.columns import Metric
from harness.statistics import FEWEST_PAIRS, rank_correlation


def _difficulties(frame: pd.DataFrame, _by: Sequence[str] | None) -> Selection:
    rows = rows_that_differ(frame, "difficulty")
    spaces = [name for name in ("policy", "calibrated") if name in rows.columns]
    return rows, [*spaces, "difficulty"]


def difficulty_orders(rows: pd.DataFrame, columns: list[str], metric: Metric) -> list[Effect]:
    """Return Spearman's rank correlation of difficulty and loss of test result."""
    points = [
        (float(size["difficulty"]), -metric.sign * cell.mean_test)
        for size, cells, _ in cells_per_size(rows, columns, metric)
        for cell in cells
        if cell.is_usable
    ]
    estimate = rank_correlation([x for x, _ in points], [y for _, y in points])
    if math.isnan(estimate.effect):
        raise Untestable(f"it needs {FEWEST_PAIRS} policies of different difficulty")
    compared = f"rank correlation over {len(points)} policies"
    return [Effect(estimate, estimate.p, math.nan, compared)]


C1 = Claim(
    name="C1",
    statement="what a teacher finds difficult lowers accuracy",
    select=_difficulties,
    test=difficulty_orders,
    is_correlation=True,
)
