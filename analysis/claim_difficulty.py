"""Claim C1: at equal magnitude, policies that a teacher finds more difficult lower accuracy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from analysis.best import position
from analysis.cells import cells_per_size
from analysis.claim_base import (
    Claim,
    Effect,
    Selection,
    Untestable,
    effect_of,
    rows_that_differ,
)
from analysis.columns import Metric
from harness.statistics import FEWEST_PAIRS, rank_correlation

FEWEST_POLICIES = FEWEST_PAIRS + 2  # the magnitude takes up to two degrees of freedom


def _difficulties(frame: pd.DataFrame, _by: Sequence[str] | None) -> Selection:
    rows = rows_that_differ(frame, "difficulty")
    spaces = [name for name in ("policy", "calibrated") if name in rows.columns]
    return rows, [*spaces, "difficulty"]


def difficulty_orders(rows: pd.DataFrame, columns: list[str], metric: Metric) -> list[Effect]:
    """Return the rank correlation of difficulty and loss of test result, at equal magnitude.

    A stronger policy is harder for the teacher and lowers accuracy in a short training, and both
    follow from its magnitude. So the correlation is the partial one given the magnitude. Policies
    differ in more than difficulty, so the points of one policy count as one pair.
    """
    points = [
        (
            float(size["difficulty"]),
            -metric.sign * cell.mean_test,
            position(cell.magnitude),
            tuple(size[name] for name in columns[:-1]) or (size["difficulty"],),
            cell,
        )
        for size, cells, _ in cells_per_size(rows, columns, metric)
        for cell in cells
        if cell.is_usable
    ]
    difficulty, loss, magnitude, policies, cells = (
        zip(*points, strict=True) if points else ((),) * 5
    )
    count = len(set(policies))
    is_enough = count in range(FEWEST_POLICIES, len(points))
    estimate = rank_correlation(difficulty, loss, magnitude, policies if is_enough else None)
    if math.isnan(estimate.effect):
        conditions = min(2, len(set(magnitude)) - 1)  # degrees of freedom that the magnitude takes
        fewest = max(FEWEST_PAIRS, 4 + conditions)
        if len(points) < fewest:
            needs = f"{fewest} policies or magnitudes with a difficulty, and has {len(points)}"
        else:
            needs = "policies whose difficulty does not follow from the magnitude"
        raise Untestable(f"it needs {needs}")
    simple = rank_correlation(difficulty, loss).effect
    compared = (
        f"rank correlation at equal magnitude ({count} policies, {len(points)} points); "
        f"{simple:+.2f} whatever the magnitude"
    )
    is_few = count < min(FEWEST_POLICIES, len(points))
    doubt = f"it needs {FEWEST_POLICIES} policies, which differ in more than difficulty"
    return [replace(effect_of(estimate, cells, compared), doubt=doubt if is_few else "")]


C1 = Claim(
    name="C1",
    statement="at equal magnitude, policies that a teacher finds more difficult lower accuracy",
    select=_difficulties,
    test=difficulty_orders,
    unit="correlation",
    refutable=False,  # where augmentation helps, harder policies may help more
)
