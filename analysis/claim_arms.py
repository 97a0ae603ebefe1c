"""Claims A3, C2 and C3: the best arm of a new kind against the best arm of the usual kind.

A3: a magnitude schedule that follows the sparsity against a constant magnitude. C2: a space that is
calibrated by difficulty against one that is not. C3: images that a teacher selects against all.
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

ArmText = Callable[[dict[str, Any]], str]  # of the values of the columns that a claim compares


def best_arm_beats(kind: ArmText, new: str, old: str, arm_name: ArmText) -> Test:
    """Return the test of the best arm of the kind `new` against the best `old` one.

    An arm is a combination of values of the compared columns at a magnitude. Arms are chosen on
    validation and compared on test. Arms of other kinds are controls: each kind gets an effect of
    its own, which decides nothing.

    The winner of many arms is flattered, because test and validation share the luck of a run. So p
    and the interval allow for the choice among the arms of the kind that wins (Bonferroni).
    """

    def test(rows: pd.DataFrame, columns: list[str], metric: Metric) -> list[Effect]:
        arms: dict[str, list[tuple[str, Cell]]] = {new: [], old: []}  # by kind: name and cell
        for size, cells, _ in cells_per_size(rows, columns, metric):
            arms.setdefault(kind(size), []).extend(
                (f"{arm_name(size)} at {format_value(cell.magnitude)}", cell)
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
            counts = len(arms[name]), len(arms[old])
            new_wins = metric.sign * (winner.mean_test - old_cell.mean_test) > 0
            choices = counts[0] if new_wins else counts[1]
            estimate = contrast([list(zip(weights, tests, strict=True))], choices)
            compared = f"{winner_name} against {old_name} ({sum(counts)} arms)"
            effect = effect_of(estimate, every, compared)
            effects.append(replace(effect, is_control=name != new))
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


def _calibration(size: dict[str, Any]) -> str:
    is_calibrated = str(size["calibrated"]).lower() in ("true", "1", "1.0")  # a text in files
    return "calibrated" if is_calibrated else "uncalibrated"


SELECTION = ("teacher.candidates", "teacher.target", "teacher.cap", "teacher.beyond")
"""The keys by which a teacher selects augmented images: the best of candidates, or by a cap."""


def _selections(frame: pd.DataFrame, _by: Sequence[str] | None) -> Selection:
    columns = [name for name in SELECTION if name in frame.columns]
    if not any(frame[name].nunique(dropna=False) > 1 for name in columns):
        raise Untestable("it needs rows that differ in how a teacher selects images")
    return frame, columns


def _selection(size: dict[str, Any]) -> str:
    chooses = (size.get("teacher.candidates") or 1) > 1
    return "selected" if chooses or size.get("teacher.cap") is not None else "all"


def _selection_name(size: dict[str, Any]) -> str:
    if _selection(size) == "all":
        return "all images"
    names = {name.removeprefix("teacher."): value for name, value in size.items()}
    return " ".join(f"{n} {format_value(value)}" for n, value in names.items() if value is not None)


A3 = Claim(
    name="A3",
    statement="a magnitude that follows the sparsity beats the best constant one",
    select=_schedules,
    test=best_arm_beats(
        lambda size: role(size["schedule"]),
        "varying",
        "constant",
        lambda size: format_value(size["schedule"]),
    ),
)
C2 = Claim(
    name="C2",
    statement="a space calibrated by difficulty beats the uncalibrated one",
    select=_calibrations,
    test=best_arm_beats(_calibration, "calibrated", "uncalibrated", _calibration),
)
C3 = Claim(
    name="C3",
    statement="images that a teacher selects by their difficulty beat all images",
    select=_selections,
    test=best_arm_beats(_selection, "selected", "all", _selection_name),
)
