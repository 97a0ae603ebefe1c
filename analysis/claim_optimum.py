"""Claims A1 and A2: the best magnitude rises with size, and falls with sparsity."""

from __future__ import annotations

import math
from collections.abc import Sequence
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
    LEVEL,
    NO_ESTIMATE,
    Estimate,
    Evidence,
    drift,
    t_quantile,
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
                raise Untestable(f"words in {name}, and no numbers of parameters to order them by")
            return rows[rows[name].notna()], [name]
    raise Untestable("it needs dense trials of at least two sizes")


def _sparsities(frame: pd.DataFrame, by: Sequence[str] | None) -> Selection:
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
    """Return the rows without dense trainings that no pruned path continues.

    A path continues a dense training that is shorter than the path. Of several such lengths the
    longest is kept. Where one sparsity was reached by paths of several lengths, the rows do not
    show which dense training belongs to which path, and all are kept.
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

    rank: float  # among the sizes of its stratum, from their middle
    log: Evidence
    cells: list[Cell]


def optimum_drifts(direction: int) -> Test:
    """Return the test whether the best magnitude rises (`direction` 1) or falls (-1) over sizes.

    The effect is the slope of the optimum over the ranks of the sizes, and p the posterior
    probability that it does not have its sign (`harness.statistics.drift`). The last column orders
    the sizes; the others are strata (the widths of A2), which share one slope. Sizes need not have
    the same magnitudes: an optimum above those of a size may lie anywhere up to 1.
    """

    def test(rows: pd.DataFrame, columns: list[str], metric: Metric) -> list[Effect]:
        strata: dict[tuple[Any, ...], list[list[Cell]]] = {}
        for size, of_size, _ in cells_per_size(rows, columns, metric):
            usable = [cell for cell in of_size if cell.is_usable]
            if len({position(cell.magnitude) for cell in usable}) >= FEWEST_MAGNITUDES:
                strata.setdefault(tuple(size[name] for name in columns[:-1]), []).append(usable)
        sizes = [size for stratum in strata.values() for size in _sizes(stratum, metric)]
        cells = [cell for size in sizes for cell in size.cells]
        counts = f"{len(sizes)} sizes, {len({cell.magnitude for cell in cells})} magnitudes"
        compared = f"drift of the best magnitude per step of {columns[-1]} ({counts})"
        if not sizes and any(len(stratum) > 1 for stratum in strata.values()):
            cells = [cell for stratum in strata.values() for usable in stratum for cell in usable]
            return [effect_of(NO_ESTIMATE, cells, compared)]  # one seed
        if not sizes or len(sizes) > MOST_OPTIMA:
            raise Untestable(
                f"it needs two sizes, at most {MOST_OPTIMA}, with {FEWEST_MAGNITUDES} magnitudes "
                "that are done"
            )
        moved = drift([size.log for size in sizes], [size.rank for size in sizes])
        low, high = sorted((direction * moved.low, direction * moved.high))
        estimate = Estimate(
            direction * moved.at, low, high,
            p=max(1 - max(moved.rises, moved.falls), 1 / DRAWS),
            error=(high - low) / (2 * t_quantile(0.5 + LEVEL / 2, math.inf)),
            freedom=math.inf,
        )  # fmt: skip
        return [effect_of(estimate, cells, compared)]

    return test


def _sizes(stratum: Sequence[list[Cell]], metric: Metric) -> list[Size]:
    """Return the sizes whose optimum is known, if they are two or more."""
    logs = [
        (log, cells) for cells in stratum if (log := optimum_evidence(cells, metric)) is not None
    ]
    middle = (len(logs) - 1) / 2
    return [Size(at - middle, *size) for at, size in enumerate(logs)] if middle else []


A1 = Claim(
    name="A1",
    statement="the best magnitude rises with size",
    unit="drift",
    select=dense_sizes,
    test=optimum_drifts(1),
    describe_cost=unequal_work,  # within a size: larger ones need more by nature
)
A2 = Claim(
    name="A2",
    statement="the best magnitude falls with sparsity",
    unit="drift",
    select=_sparsities,
    test=optimum_drifts(-1),
    check_budget=check_budget,  # within a sparsity: paths to more sparsity are longer by nature
    describe_cost=unequal_work,
)
