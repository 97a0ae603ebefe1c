"""Claims A3 and C2: the best arm of a new kind against the best arm of the usual kind.

A3: a magnitude schedule that follows the sparsity against a constant magnitude. C2: a space that is
calibrated by difficulty against one that is not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from analysis.cells import Cell, cells_per_size
from analysis.claim_base import (
    Claim,
    Effect,
    Selection,
    Test,
    Untestable,
    effect_of,
    rows_that_differ,
)
from analysis.columns import NONE, Metric
from analysis.render import format_value
from harness.statistics import contrast
from harness.sweep.schedules import role


def best_arm_beats(
    kind: Callable[[Any], str], new: str, old: str, arm_name: Callable[[Any], str] = format_value
) -> Test:
    """Return the test of the best arm of the kind `new` against the best `old` one.

    An arm is a value of the first column at a magnitude; `kind` and `arm_name` take that value.
    Arms are chosen on validation and compared on test. Arms of other kinds are controls: each kind
    gets an effect of its own, which decides nothing.

    The winner of many arms is flattered wherever test and validation share the luck of a run. Two
    winners of equally many arms cancel; otherwise p is multiplied by the ratio of their numbers
    (without it a flat truth was rejected in up to 10 % of simulations with 6 arms against 1, with
    it in 2 %).
    """

    def test(rows: pd.DataFrame, columns: list[str], metric: Metric) -> list[Effect]:
        arms: dict[str, list[tuple[str, Cell]]] = {new: [], old: []}  # by kind: name and cell
        for size, cells, _ in cells_per_size(rows, columns, metric):
            value = size[columns[0]]
            arms.setdefault(kind(value), []).extend(
                (f"{arm_name(value)} at {format_value(cell.magnitude)}", cell)
                for cell in cells
                if cell.is_usable
            )
        for required in (new, old):
            if not arms[required]:
                raise Untestable(f"no {required} arm is done")
        every = [cell for arms_of_kind in arms.values() for _, cell in arms_of_kind]
        winners = {
            name: max(arms_of_kind, key=lambda arm: metric.sign * arm[1].mean_val)
            for name, arms_of_kind in arms.items()
            if arms_of_kind
        }
        old_name, old_cell = winners.pop(old)
        effects = []
        for name, (winner_name, winner) in winners.items():
            # 1 and -1 for the two winners; the other cells only contribute to the spread
            weights = [metric.sign * ((cell is winner) - (cell is old_cell)) for cell in every]
            tests = [cell.test for cell in every]
            estimate = contrast([list(zip(weights, tests, strict=True))])
            counts = len(arms[name]), len(arms[old])
            compared = f"{winner_name} against {old_name} ({sum(counts)} arms)"
            p = min(1.0, estimate.p * max(counts) / min(counts))
            effect = effect_of(estimate, every, compared)
            effects.append(replace(effect, p=p, is_control=name != new))
        return effects

    return test


def _schedules(frame: pd.DataFrame, _by: Sequence[str] | None) -> Selection:
    return rows_that_differ(frame, "schedule"), ["schedule"]


def _calibrations(frame: pd.DataFrame, _by: Sequence[str] | None) -> Selection:
    """Select calibrated and uncalibrated spaces; each is a separate policy.

    Rows at magnitude `none` are left out, because they do not use a space.
    """
    rows = rows_that_differ(frame, "calibrated")
    policy = [name for name in ("policy",) if name in rows.columns]
    return rows[rows["magnitude"] != NONE], ["calibrated", *policy]


def _calibration_kind(value: Any) -> str:
    is_calibrated = str(value).lower() in ("true", "1", "1.0")  # a text in CSV and Parquet
    return "calibrated" if is_calibrated else "uncalibrated"


A3 = Claim(
    name="A3",
    statement="a magnitude that follows the sparsity beats the best constant one",
    select=_schedules,
    test=best_arm_beats(role, "varying", "constant"),
)
C2 = Claim(
    name="C2",
    statement="a space calibrated by difficulty beats the uncalibrated one",
    select=_calibrations,
    test=best_arm_beats(_calibration_kind, "calibrated", "uncalibrated", _calibration_kind),
)
