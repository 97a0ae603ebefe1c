"""What every claim is made of: a selection of rows, a check of budgets, and a test of an effect.

With every metric, a positive effect is in the direction that the claim predicts. Effects are
differences of test results; where arms have to be chosen first, they are chosen on validation.

A budget is epochs and examples, along the whole path of stages. Unequal budgets are refused.
Multiply-adds are not a budget: arms that need more of them per example (a teacher, additional
parameters) are compared, and the table says how many more they need.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from analysis.cells import Cell, magnitude_key
from analysis.columns import Metric
from analysis.render import format_range, format_value
from harness.statistics import Estimate, mean

BUDGETS = ("epochs", "examples")
TOLERANCE = 0.01  # share by which the budgets of compared arms may differ
WORK_TOLERANCE = 0.1  # masks of one sparsity differ in multiply-adds by some per cent


class Untestable(Exception):
    """The reason why a claim cannot be tested on these rows."""


def check_budget(rows: pd.DataFrame, within: Sequence[str]) -> str:
    """Raise Untestable where arms that agree in `within` were trained for different lengths.

    Returns a note if the rows lack the columns that tell, else an empty text.
    """
    done = rows[rows["state"] == "done"]
    budgets = [name for name in BUDGETS if name in done.columns and done[name].notna().any()]
    for name in budgets:
        bounds = _bounds(done, within, name)
        unequal = bounds[bounds["max"] > (1 + TOLERANCE) * bounds["min"]]
        if len(unequal):
            low, high = unequal.iloc[0][["min", "max"]]
            raise Untestable(
                f"unequal budgets, {low:g} to {high:g} {name}: "
                "unequal_budgets=true compares them anyway"
            )
    return "" if budgets or done.empty else "; budgets unknown: no column epochs or examples"


def path_lengths(rows: pd.DataFrame, every: pd.DataFrame) -> str:
    """Return how long the trials in `rows` trained, if trials in `every` differ in that."""
    for name in BUDGETS:  # examples follow from epochs, as long as nothing else changes them
        if name in every.columns:
            all_lengths, lengths = (
                frame[frame["state"] == "done"][name].dropna() for frame in (every, rows)
            )
            if len(lengths) and all_lengths.max() > (1 + TOLERANCE) * all_lengths.min():
                return f"; paths of {format_range(lengths.min(), lengths.max())} {name}"
    return ""


def unequal_work(rows: pd.DataFrame, within: Sequence[str]) -> str:
    """Return how much arms that agree in `within` differ in multiply-adds of training, if so."""
    done = rows[rows["state"] == "done"]
    if "train_macs" not in done.columns or not done["train_macs"].max() > 0:
        return ""
    bounds = _bounds(done[done["train_macs"] > 0], within, "train_macs")
    ratio = float((bounds["max"] / bounds["min"]).max())
    return f"; multiply-adds differ up to {ratio:.1f} x" if ratio > 1 + WORK_TOLERANCE else ""


def _bounds(done: pd.DataFrame, within: Sequence[str], name: str) -> pd.DataFrame:
    """Return the lowest and highest value of the column `name` per group of rows."""
    groups: Any = list(within) or [0] * len(done)  # zeros: one group of all rows
    return done.groupby(groups, dropna=False, sort=False)[name].agg(["min", "max"])


def mean_work(rows: pd.DataFrame, columns: Sequence[str]) -> dict[tuple[Any, ...], float]:
    """Return the mean multiply-adds of training by the values of `columns`, where known."""
    done = rows[rows["state"] == "done"]
    if "train_macs" not in done.columns:
        return {}
    means = done.groupby(list(columns), dropna=False)["train_macs"].mean()
    keys = [key if isinstance(key, tuple) else (key,) for key in means.index]
    return {key: float(work) for key, work in zip(keys, means, strict=True) if work > 0}


def compare_work(
    arm: tuple[str, Any], others: Sequence[tuple[str, Any]], work: Mapping[Any, float]
) -> str:
    """Return how many times the multiply-adds of each other arm `arm` takes, where they differ.

    An arm is its name and its key in `work`.
    """
    name, key = arm
    text = ""
    for other_name, other in others:
        if key in work and other in work:
            ratio = work[key] / work[other]
            if not 1 / (1 + WORK_TOLERANCE) <= ratio <= 1 + WORK_TOLERANCE:
                rounded = format_value(float(f"{ratio:.2g}"))
                text += f"; {name} takes {rounded} x the multiply-adds of {other_name}"
    return text


@dataclass(frozen=True)
class Effect:
    """An estimate, its p-value before correction over groups, and what was compared."""

    estimate: Estimate
    p: float
    seeds: float  # per cell, mean
    compared: str
    doubt: str = ""  # why there is no verdict, however small p is
    is_control: bool = False  # of an arm that serves as a comparison and is not a claim


Selection = tuple[pd.DataFrame, list[str]]
Select = Callable[[pd.DataFrame, "Sequence[str] | None"], Selection]
Test = Callable[[pd.DataFrame, list[str], Metric], list[Effect]]


@dataclass(frozen=True)
class Claim:
    """A claim of the study and how it is tested.

    `select(frame, by)` returns the rows that the claim is about and the columns that it compares;
    the other functions take both. `test` returns the effects. `check_budget` returns a note where
    budgets are unknown, and `describe_cost` how the costs of the arms differ; by default over all
    of the rows. `select`, `test` and `check_budget` raise Untestable.
    """

    name: str
    statement: str
    select: Select
    test: Test
    check_budget: Callable[[pd.DataFrame, list[str]], str] = lambda rows, _: check_budget(rows, [])
    describe_cost: Callable[[pd.DataFrame, list[str]], str] = lambda rows, _: unequal_work(rows, [])
    unit: Literal["result", "drift", "correlation"] = "result"  # of the effect
    refutable: bool = True  # whether an effect against the prediction contradicts the claim


def ruled_out_beyond(ends: tuple[float | str, float | str], cells: Iterable[Cell]) -> str:
    """Return the doubt that the rule of the sweep left weaker or stronger magnitudes out.

    `ends` are the weakest and the strongest magnitude that are compared. Empty if none was.
    """
    low, high = map(magnitude_key, ends)
    left_out = {cell.magnitude for cell in cells if cell.is_ruled_out}
    beyond = [m for m in sorted(left_out, key=magnitude_key) if not low <= magnitude_key(m) <= high]
    shown = ", ".join(map(format_value, beyond))
    return f"ruled out and not compared: {shown} (settle=false trains them)" if beyond else ""


def effect_of(estimate: Estimate, cells: Sequence[Cell], compared: str) -> Effect:
    """Return the effect that was estimated from `cells`."""
    return Effect(estimate, estimate.p, mean([len(cell.test) for cell in cells]), compared)


def rows_that_differ(frame: pd.DataFrame, column: str) -> pd.DataFrame:
    """Return the rows that have a value of `column`. Raises Untestable where it does not vary."""
    if column not in frame.columns or frame[column].nunique() < 2:
        raise Untestable(f"no rows that differ in {column}")
    return frame[frame[column].notna()]
