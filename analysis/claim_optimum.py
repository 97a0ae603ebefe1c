"""Claims A1 and A2: the best magnitude rises with size, and falls with sparsity."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple

import pandas as pd

from analysis.best import MOST_OPTIMA, optimum_evidence, position
from analysis.cells import Cell, cells_per_size, is_determined, is_ordered, mean_counts
from analysis.claim_base import (
    Claim,
    Effect,
    Selection,
    Test,
    Untestable,
    check_budget,
    effect_of,
    rows_that_differ,
    unequal_work,
)
from analysis.columns import NONE, Metric
from harness.statistics import (
    DRAWS,
    FEWEST_MAGNITUDES,
    NO_ESTIMATE,
    NORMAL_QUANTILE,
    Estimate,
    Evidence,
    drift,
)

SIZES = ("width", "depth", "params_total")
"""A1 orders sizes by the first of these columns that varies among the dense trials."""


# --- which rows the claims are about ------------------------------------------------------------


def dense_sizes(frame: pd.DataFrame, by: Sequence[str] | None) -> Selection:
    """Select the dense trials of two or more sizes, and the column that orders them."""
    rows = _without_variants(frame)
    if "sparsity" in rows.columns:
        rows = rows[rows["sparsity"].isna() | (rows["sparsity"] == 0)]
    rows = mean_counts(rows, by or ())
    ordered = [name for name in by or () if name in rows.columns and is_ordered(rows, name)]
    for name in (*ordered, *SIZES):
        if name in rows.columns and rows[name].nunique() > 1:
            if not is_ordered(rows, name):
                raise Untestable(
                    f"it needs an order of {name}: numbers, or the number of parameters of each"
                )
            return rows[rows[name].notna()], [name]
    raise Untestable("it needs dense trials of at least two sizes")


def _sparsities(frame: pd.DataFrame, by: Sequence[str] | None) -> Selection:
    """Select dense and pruned trials that differ in sparsity, and the columns: strata, sparsity."""
    rows = rows_that_differ(mean_counts(_without_variants(frame), by or ()), "sparsity")
    rows = _without_longer_dense_trainings(rows)
    return rows, [*(name for name in ("width", "depth") if name in rows.columns), "sparsity"]


def _without_variants(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows without magnitude schedules, surplus and dense-long controls."""
    for column, plain in (("schedule", "constant"), ("surplus", NONE)):
        if column in frame.columns:
            frame = frame[frame[column].isna() | (frame[column] == plain)]
    return frame[frame["dense_long"].isna()] if "dense_long" in frame.columns else frame


def _without_longer_dense_trainings(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the pruned rows, and of the dense rows those that are the dense stage of their paths.

    The dense stage is the longest dense training that is shorter than every pruned path. Where one
    sparsity was reached by paths of several lengths, the rows do not show which dense training
    belongs to which path, and all are kept.
    """
    if "epochs" not in rows.columns:
        return rows
    dense, pruned = rows[rows["sparsity"] == 0], rows[rows["sparsity"] > 0]
    lengths = sorted(dense["epochs"].dropna().unique())
    if len(lengths) < 2 or not is_determined(pruned, "epochs", ["sparsity"]):
        return rows
    shorter = [length for length in lengths if length < pruned["epochs"].min()]
    return rows[(rows["sparsity"] > 0) | rows["epochs"].isin(shorter[-1:])]


# --- the test -----------------------------------------------------------------------------------


class Size(NamedTuple):
    """A size that takes part in a drift."""

    rank: float  # 0, 1, ... in its stratum, minus the mean, so that ranks sum to 0
    log: Evidence
    cells: list[Cell]


def optimum_drifts(direction: int) -> Test:
    """Return the test whether the best magnitude rises (`direction` 1) or falls (-1) over sizes.

    The effect is the slope of the optimum over the ranks of the sizes, and p the posterior
    probability that the true slope is 0 or has the other sign (`harness.statistics.drift`). The
    last column orders the sizes; the others are strata (the widths of A2), which share one slope.
    Sizes need not have the same magnitudes. If a size's highest magnitude is best, its optimum may
    lie anywhere from there to 1.
    """

    def test(rows: pd.DataFrame, columns: list[str], metric: Metric) -> list[Effect]:
        strata: dict[tuple[Any, ...], list[list[Cell]]] = {}
        for size, of_size, _ in cells_per_size(rows, columns, metric):
            usable = [cell for cell in of_size if cell.is_usable]
            if len({position(cell.magnitude) for cell in usable}) >= FEWEST_MAGNITUDES:
                strata.setdefault(tuple(size[name] for name in columns[:-1]), []).append(usable)
        comparable = [stratum for stratum in strata.values() if len(stratum) > 1]
        if not comparable:
            raise Untestable(
                f"it needs two sizes with {FEWEST_MAGNITUDES} magnitudes that are done"
            )
        count = sum(map(len, comparable))
        if count > MOST_OPTIMA:
            raise Untestable(f"it takes {MOST_OPTIMA} sizes, not {count}: select some with where=")
        sizes = [size for stratum in comparable for size in _sizes(stratum, metric)]
        used = [size.cells for size in sizes] or list(chain(*comparable))
        cells = list(chain(*used))
        counts = f"{len(used)} sizes, {len({cell.magnitude for cell in cells})} magnitudes"
        compared = f"drift of the best magnitude per step of {columns[-1]} ({counts})"
        if not sizes:  # one seed
            return [effect_of(NO_ESTIMATE, cells, compared)]
        moved = drift([size.log for size in sizes], [size.rank for size in sizes])
        low, high = sorted((direction * moved.low, direction * moved.high))
        estimate = Estimate(
            direction * moved.at, low, high,
            p=max(1 - max(moved.rises, moved.falls), 1 / DRAWS),  # if all draws agree: below this
            error=(high - low) / (2 * NORMAL_QUANTILE),  # only for `detectable`
            freedom=math.inf,
        )  # fmt: skip
        return [effect_of(estimate, cells, compared)]

    return test


def _sizes(stratum: Sequence[list[Cell]], metric: Metric) -> list[Size]:
    """Return the sizes whose optimum is known, if they are two or more."""
    logs = [
        (log, cells) for cells in stratum if (log := optimum_evidence(cells, metric)) is not None
    ]
    if len(logs) < 2:
        return []
    middle = (len(logs) - 1) / 2
    return [Size(rank - middle, log, cells) for rank, (log, cells) in enumerate(logs)]


A1 = Claim(
    name="A1",
    statement="the best magnitude rises with size",
    unit="drift",
    select=dense_sizes,
    test=optimum_drifts(1),
    describe_cost=unequal_work,  # compared within a size, because larger ones always need more
)
A2 = Claim(
    name="A2",
    statement="the best magnitude falls with sparsity",
    unit="drift",
    select=_sparsities,
    test=optimum_drifts(-1),
    check_budget=check_budget,  # within a sparsity, because paths to more are longer
    describe_cost=unequal_work,
)
