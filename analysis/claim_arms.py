"""Claims A3, C2 and C3: the best arm of a new kind against the best arm of the usual kind.

A3: a magnitude schedule that follows the sparsity against a constant magnitude. C2: a space that is
calibrated by difficulty against one that is not. C3: images that a teacher selects against all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import pandas as pd

from analysis.cells import Cell, cells_per_size, difference_on_test
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
from harness.sweep.schedules import kind_of

ArmText = Callable[[dict[str, Any]], str]  # from the values of the compared columns to a text


class Arm(NamedTuple):
    """The winner of a kind of arms, or a control."""

    name: str  # "falling at 0.4"
    cell: Cell
    among: int  # number of arms of its kind


def best_arm_beats(
    kind: ArmText, new: str, old: str, arm_name: ArmText, equal_magnitude: bool = False
) -> Test:
    """Return the test of the best arm of the kind `new` against the best `old` one.

    An arm is a combination of values of the compared columns at a magnitude. Arms are chosen on
    validation and compared on test. Controls do not change the verdict: the winner is also compared
    with the best arm of each other kind and, with `equal_magnitude`, with the `old` arm of its own
    magnitude.

    The winner of many arms was partly lucky, and test and validation share the luck of a run. So p
    and the interval allow for the choice among the arms of the kind that wins (Bonferroni).
    """

    def test(rows: pd.DataFrame, columns: list[str], metric: Metric) -> list[Effect]:
        arms: dict[str, list[tuple[str, Cell]]] = {new: [], old: []}  # by kind
        for size, cells, _ in cells_per_size(rows, columns, metric):
            arms.setdefault(kind(size), []).extend(
                (f"{arm_name(size)} at {format_value(cell.magnitude)}", cell)
                for cell in cells
                if cell.is_usable
            )
        for required in (new, old):
            if not arms[required]:
                raise Untestable(f"no {required} arm is done")
        every = [cell for of_kind in arms.values() for _, cell in of_kind]
        winners = {name: _winner(of_kind, metric) for name, of_kind in arms.items() if of_kind}
        winner, rival = winners.pop(new), winners.pop(old)
        effects = [_compare(winner, rival, every, metric)]
        controls = list(winners.values())
        if equal_magnitude:
            controls += [
                Arm(name, cell, 1)
                for name, cell in arms[old]
                if cell.magnitude == winner.cell.magnitude and cell is not rival.cell
            ]
        compared = (_compare(winner, control, every, metric) for control in controls)
        return [*effects, *(replace(effect, is_control=True) for effect in compared)]

    return test


def _winner(arms: Sequence[tuple[str, Cell]], metric: Metric) -> Arm:
    """Return the best arm on validation."""
    name, cell = max(arms, key=lambda arm: metric.sign * arm[1].mean_val)
    return Arm(name, cell, len(arms))


def _compare(arm: Arm, other: Arm, every: Sequence[Cell], metric: Metric) -> Effect:
    """Return how much better `arm` is than `other` on test."""
    wins = metric.sign * (arm.cell.mean_test - other.cell.mean_test) > 0
    choices = (arm if wins else other).among
    estimate = difference_on_test(arm.cell, other.cell, every, metric, choices)
    return effect_of(estimate, every, f"{arm.name} against {other.name}")


def _schedules(frame: pd.DataFrame, _by: Sequence[str] | None) -> Selection:
    return rows_that_differ(frame, "schedule"), ["schedule"]


def _calibrations(frame: pd.DataFrame, _by: Sequence[str] | None) -> Selection:
    """Select calibrated and uncalibrated spaces; each is a separate policy.

    Rows at magnitude `none` are left out, because they do not use a space.
    """
    rows = rows_that_differ(frame, "calibrated")
    policy = ["policy"] if "policy" in rows.columns else []
    return rows[rows["magnitude"] != NONE], ["calibrated", *policy]


def _calibration(size: dict[str, Any]) -> str:
    is_calibrated = str(size["calibrated"]).lower() in (
        "true",
        "1",
        "1.0",
    )  # rows from a file hold text
    return "calibrated" if is_calibrated else "uncalibrated"


SELECTION = ("teacher.candidates", "teacher.target", "teacher.cap", "teacher.beyond")
"""The keys by which a teacher takes the best of several candidates, or weights images by a cap."""


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
        lambda size: kind_of(size["schedule"]),
        "varying",
        "constant",
        lambda size: format_value(size["schedule"]),
        equal_magnitude=True,
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
