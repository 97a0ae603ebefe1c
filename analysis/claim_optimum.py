"""Claims A1, A2 and L: the best magnitude rises with size and length, and falls with sparsity."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

import pandas as pd

from analysis.best import MOST_CURVES, optimum_evidence, position
from analysis.cells import (
    LENGTHS,
    MODEL_SIZES,
    Cell,
    cells_per_size,
    is_determined,
    is_ordered,
    mean_counts,
    size_columns,
)
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
from analysis.columns import NONE, Metric, header_of
from analysis.render import counted
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
    rows = mean_counts(_dense(frame), by or ())
    ordered = [name for name in by or () if name in rows.columns and is_ordered(rows, name)]
    for name in (*(name for name in ordered if name not in LENGTHS), *SIZES):
        if name in rows.columns and rows[name].nunique() > 1:
            if not is_ordered(rows, name):
                raise Untestable(
                    f"it needs an order of {name}: numbers, or the number of parameters of each"
                )
            return rows[rows[name].notna()], [name]
    raise Untestable("it needs dense trials of at least two sizes")


def _sizes_at_each_length(frame: pd.DataFrame, by: Sequence[str] | None) -> Selection:
    """Select as `dense_sizes`; where a size was trained for several lengths, these are strata."""
    rows, columns = dense_sizes(frame, by)
    return rows, [*(["epochs"] if "epochs" in size_columns(rows, by) else []), *columns]


def _lengths(frame: pd.DataFrame, _by: Sequence[str] | None) -> Selection:
    """Select the dense trials, if they differ in length, and the columns: strata, epochs.

    The path of a dense trial is its dense training, so `epochs` is the length of that. A path to a
    sparsity also has levels.
    """
    rows = _dense(frame)
    if "epochs" not in rows.columns or rows["epochs"].nunique() < 2:
        raise Untestable("it needs dense trials that differ in epochs")
    return rows[rows["epochs"].notna()], [*_model_sizes(rows), "epochs"]


def _sparsities(frame: pd.DataFrame, by: Sequence[str] | None) -> Selection:
    """Select dense and pruned trials that differ in sparsity, and the columns: strata, sparsity."""
    rows = rows_that_differ(mean_counts(_without_variants(frame), by or ()), "sparsity")
    rows = _without_longer_dense_trainings(rows)
    return rows, [*_model_sizes(rows), "sparsity"]


def _model_sizes(rows: pd.DataFrame) -> list[str]:
    return [name for name in MODEL_SIZES if name in rows.columns]


def _dense(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of dense trials without variants."""
    rows = _without_variants(frame)
    if "sparsity" in rows.columns:
        rows = rows[rows["sparsity"].isna() | (rows["sparsity"] == 0)]
    return rows


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
    value: Any  # of the column that orders the sizes
    log: Evidence
    cells: list[Cell]


def optimum_drifts(direction: int) -> Test:
    """Return the test whether the best magnitude rises (`direction` 1) or falls (-1) over sizes.

    The effect is the slope of the optimum over the ranks of the sizes, and p the posterior
    probability that the true slope is 0 or has the other sign (`harness.statistics.drift`). The
    last column orders the sizes; the others are strata (lengths of A1, widths of A2 and L), which
    share one slope. Sizes need not have the same magnitudes. If a size's highest magnitude is best,
    its optimum may lie anywhere from there to 1.

    Strata are not independent: their curves have similar shapes, which the posterior may take for a
    drift in each, and runs of one trunk share their luck. So they share draws, and p is no smaller
    than that of one stratum with the mean drift.
    """

    def test(rows: pd.DataFrame, columns: list[str], metric: Metric) -> list[Effect]:
        is_of_length = columns[-1] == "epochs"
        strata: dict[tuple[Any, ...], dict[Any, list[Cell]]] = {}
        for size, of_size, _ in cells_per_size(rows, columns, metric):
            usable = [cell for cell in of_size if cell.is_usable]
            if len({position(cell.magnitude) for cell in usable}) >= FEWEST_MAGNITUDES:
                *stratum, value = size.values()
                strata.setdefault(tuple(stratum), {})[value] = usable
        comparable = [stratum for stratum in strata.values() if len(stratum) > 1]
        if not comparable:
            two = "lengths of a size" if is_of_length else "sizes"
            raise Untestable(
                f"it needs two {two} with {FEWEST_MAGNITUDES} magnitudes that are done"
            )
        count = sum(map(len, comparable))
        if count > MOST_CURVES:
            raise Untestable(f"it takes {MOST_CURVES} sizes, not {count}: select some with where=")
        with_optima = [sizes for stratum in comparable if (sizes := _sizes(stratum, metric))]
        sizes = list(chain(*with_optima))
        used = [s.cells for s in sizes] or [cells for of in comparable for cells in of.values()]
        cells = list(chain(*used))
        strata_count = len(with_optima or comparable)
        noun = f"lengths of {counted(strata_count, 'size')}" if is_of_length else "sizes"
        counts = f"{len(used)} {noun}, {len({cell.magnitude for cell in cells})} magnitudes"
        compared = f"drift of the best magnitude per step of {columns[-1]} ({counts})"
        if not sizes:  # one seed
            return [effect_of(NO_ESTIMATE, cells, compared)]
        values = list(dict.fromkeys(size.value for size in sizes))
        draws = [values.index(size.value) for size in sizes]
        logs, ranks = [size.log for size in sizes], [size.rank for size in sizes]
        estimate = drift_estimate(logs, ranks, draws, direction)
        return [effect_of(estimate, cells, compared)]

    return test


def drift_estimate(
    logs: Sequence[Evidence], ranks: Sequence[float], draws: Sequence[int], direction: int
) -> Estimate:
    """Return the drift of optima over `ranks` (`harness.statistics.drift`) as an estimate.

    The effect is positive in the `direction` 1 (rises) or -1 (falls). p is the probability that the
    true drift is 0 or has the other sign.
    """
    moved = drift(logs, ranks, draws)
    low, high = sorted((direction * moved.low, direction * moved.high))
    return Estimate(
        direction * moved.at, low, high,
        p=max(1 - max(moved.rises, moved.falls), 1 / DRAWS),  # if all draws agree: below this
        error=(high - low) / (2 * NORMAL_QUANTILE),  # only for `detectable`
        freedom=math.inf,
    )  # fmt: skip


def _sizes(stratum: Mapping[Any, list[Cell]], metric: Metric) -> list[Size]:
    """Return the sizes whose optimum is known, if they are two or more."""
    usable = [
        (value, log, cells)
        for value, cells in stratum.items()
        if (log := optimum_evidence(cells, metric)) is not None
    ]
    if len(usable) < 2:
        return []
    middle = (len(usable) - 1) / 2
    return [Size(rank - middle, *parts) for rank, parts in enumerate(usable)]


def _what_follows_the_length(rows: pd.DataFrame, columns: list[str]) -> str:
    """Return the axes, such as a learning rate, that differ between the lengths of a size."""
    names = [name for name in size_columns(rows) if name not in columns]
    names = [name for name in names if not is_determined(rows, name, columns[:-1])]
    return f"; lengths also differ in {', '.join(map(header_of, names))}" if names else ""


A1 = Claim(
    name="A1",
    statement="the best magnitude rises with size",
    unit="drift",
    select=_sizes_at_each_length,
    test=optimum_drifts(1),
    check_budget=lambda rows, columns: check_budget(rows, columns[:-1]),  # within a length
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
L = Claim(
    name="L",
    statement="the best magnitude rises with the length of training",
    unit="drift",
    select=_lengths,
    test=optimum_drifts(1),
    check_budget=check_budget,  # within a length
    describe_cost=_what_follows_the_length,
)
