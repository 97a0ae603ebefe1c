"""What every claim is made of: a selection of rows, a check of budgets, and a test of an effect.

With every metric, a positive effect is in the direction that the claim predicts. Effects are
differences of test results; where arms have to be chosen first, they are chosen on validation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pandas as pd

from analysis.budgets import Untestable, check_budget, unequal_work
from analysis.cells import Cell
from analysis.columns import Metric
from harness.statistics import Estimate, mean


@dataclass(frozen=True)
class Effect:
    """An estimate, its p-value before correction over groups, and what was compared."""

    estimate: Estimate
    p: float
    seeds: float  # per cell, mean; NaN where more seeds would settle nothing
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
    is_correlation: bool = False  # the effect is a rank correlation, not a difference of results


def effect_of(estimate: Estimate, cells: Sequence[Cell], compared: str) -> Effect:
    """Return the effect that was estimated from `cells`."""
    return Effect(estimate, estimate.p, mean([len(cell.test) for cell in cells]), compared)


def rows_that_differ(frame: pd.DataFrame, column: str) -> pd.DataFrame:
    """Return the rows that have a value of `column`. Raises Untestable where it does not vary."""
    if column not in frame.columns or frame[column].nunique() < 2:
        raise Untestable(f"it needs rows that differ in the column `{column}`")
    return frame[frame[column].notna()]
