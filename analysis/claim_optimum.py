"""Claims A1 and A2: the best magnitude rises with size, and falls with sparsity."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import pandas as pd

from analysis.best import MOST_OPTIMA, smooth_optimum
from analysis.cells import (
    Cell,
    best_cell,
    cells_per_size,
    is_determined,
    is_ordered,
    magnitude_key,
    mean_counts,
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
from analysis.columns import NONE, Metric
from analysis.render import format_value
from harness.statistics import ALPHA, LEVEL, Estimate, contrast, mean, pooled, t_quantile

SIZES = ("width", "depth", "params_total")
"""A1 orders sizes by the first of these columns that varies among the dense trials."""
Cells = tuple[Cell, ...]  # of one size


# --- which rows the claims are about ------------------------------------------------------------


def _dense_sizes(frame: pd.DataFrame, by: Sequence[str] | None) -> Selection:
    rows = _without_variants(frame)
    if "sparsity" in rows.columns:
        rows = rows[rows["sparsity"].isna() | (rows["sparsity"] == 0)]
    rows = mean_counts(rows, by or ())
    ordered = [name for name in by or () if name in rows.columns and is_ordered(rows, name)]
    for name in (*ordered, *SIZES):
        if name in rows.columns and rows[name].nunique() > 1:
            if not is_ordered(rows, name):
                raise Untestable(f"words in {name}, and no numbers of parameters to order them by")
            return rows, [name]
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


def optimum_moves(direction: int) -> Test:
    """Return the test whether the best magnitude rises (`direction` 1) or falls (-1) over sizes.

    The effect is the linear-by-linear interaction of the rank of the size and the magnitude: the
    change, from one size to the next, of the slope over the whole scale of magnitudes. The last
    column orders the sizes; the others are strata (the widths of A2), which count alike. The
    interaction is also positive where slopes differ while one magnitude is best everywhere, so a
    verdict also needs chosen magnitudes and smooth optima that move.
    """

    def test(rows: pd.DataFrame, columns: list[str], metric: Metric) -> list[Effect]:
        sizes_of: dict[tuple[Any, ...], list[Cells]] = {}
        for size, cells, _ in cells_per_size(rows, columns, metric):
            sizes_of.setdefault(tuple(size[name] for name in columns[:-1]), []).append(cells)
        strata = [stratum for stratum in map(_complete, sizes_of.values()) if stratum.grid]
        if not strata:
            raise Untestable("no two sizes share two magnitudes that are done")
        estimate = _interaction([stratum.grid for stratum in strata], direction * metric.sign)
        shape = " + ".join(f"{len(s.grid)} x {len(s.grid[0])}" for s in strata)
        compared = f"slope over magnitude, per step of {columns[-1]} ({shape} cells)"
        used = [cell for stratum in strata for cells in stratum.grid for cell in cells]
        effect = effect_of(estimate, used, compared)
        if not effect.p < ALPHA:
            return [effect]
        observed = direction if effect.estimate.effect > 0 else -direction
        sizes = [stratum.sizes for stratum in strata]
        reason = _why_choices_stay(sizes, observed, columns[-1], metric) or _why_optima_stay(
            sizes, observed, columns[-1], metric
        )
        if reason:
            reason = f"slopes differ, the best magnitude itself is not shown to move: {reason}"
        return [replace(effect, doubt=reason)]

    return test


class Stratum(NamedTuple):
    """Sizes that are compared with each other."""

    grid: list[list[Cell]]  # the usable cells by size and magnitude, without gaps
    sizes: list[Cells]  # all cells of the same sizes


def _complete(sizes: Sequence[Cells]) -> Stratum:
    """Return the sizes without those that have few usable cells.

    Of the sizes with the most magnitudes, as many are kept as leave the most independent
    interactions, (sizes - 1) x (shared magnitudes - 1). The grid is empty where none are left.
    """
    usable = [
        {c.magnitude: c for c in cells if c.is_usable and c.magnitude != NONE} for cells in sizes
    ]
    fullest = sorted(range(len(usable)), key=lambda at: -len(usable[at]))
    kept_count, most, shared = 0, 0, set(usable[fullest[0]])
    for count, at in enumerate(fullest, 1):
        shared &= set(usable[at])
        if (count - 1) * (len(shared) - 1) > most:
            kept_count, most = count, (count - 1) * (len(shared) - 1)
    kept = sorted(fullest[:kept_count])
    chosen = [usable[at] for at in kept]
    common = [m for m in chosen[0] if all(m in cells for cells in chosen)] if chosen else []
    return Stratum([[cells[m] for m in common] for cells in chosen], [sizes[at] for at in kept])


def _interaction(grids: Sequence[list[list[Cell]]], sign: int) -> Estimate:
    """Return the interaction of size rank and magnitude, each size with a spread of its own."""
    groups = []
    for grid in grids:
        ranks = _centred_ranks(len(grid))
        magnitudes = [float(cell.magnitude) for cell in grid[0]]
        offsets = [magnitude - mean(magnitudes) for magnitude in magnitudes]
        unit = sum(r * r for r in ranks) * sum(d * d for d in offsets) * len(grids)
        for rank, cells in zip(ranks, grid, strict=True):
            scale = sign * rank / unit
            groups.append([(scale * d, c.test) for d, c in zip(offsets, cells, strict=True)])
    return contrast(groups)


def _centred_ranks(count: int) -> list[float]:
    return [at - (count - 1) / 2 for at in range(count)]


# Where slopes differ and nothing moves, 0 to 1 % of simulations pass the two conditions below; of
# optima that move inside the grid by a step per size, 98 % do.


def _why_choices_stay(
    strata: Sequence[Sequence[Cells]], direction: int, column: str, metric: Metric
) -> str:
    """Return why the chosen magnitudes do not go up (1) or down (-1) over sizes; empty if they do.

    Their trend over the ranks of the sizes has to have that sign.
    """
    chosen = [
        [best_cell([c for c in cells if c.is_usable], metric).magnitude for cells in sizes]
        for sizes in strata
    ]
    order = sorted({m for magnitudes in chosen for m in magnitudes}, key=magnitude_key)
    trend = sum(
        rank * order.index(magnitude)
        for magnitudes in chosen
        for rank, magnitude in zip(_centred_ranks(len(magnitudes)), magnitudes, strict=True)
    )
    if direction * trend > 0:
        return ""
    if len(order) == 1:
        return f"{format_value(order[0])} at every {column}"
    return "; ".join(", ".join(map(format_value, magnitudes)) for magnitudes in chosen)


def _why_optima_stay(
    strata: Sequence[Sequence[Cells]], direction: int, column: str, metric: Metric
) -> str:
    """Return why the smooth optima are not shown to go up (1) or down (-1); empty if they are.

    Their trend over the ranks of the sizes has to exceed its error, which follows from their
    intervals (one-sided 5 %), and not all of them may lie at the same end of the grid.
    """
    ranks = [rank for sizes in strata for rank in _centred_ranks(len(sizes))]
    sizes = [cells for stratum in strata for cells in stratum]
    usable = [[cell for cell in cells if cell.is_usable] for cells in sizes]
    optima = [
        smooth_optimum(cells, pooled([cell.val for cell in cells]), metric)
        for cells in (usable if len(sizes) <= MOST_OPTIMA else [])
    ]
    available = [optimum for optimum in optima if optimum]
    if len(available) < len(sizes):
        return (
            f"the smooth optimum is not known at every {column}, which takes 3 magnitudes, "
            f"2 seeds, and at most {MOST_OPTIMA} sizes"
        )
    for end, word in ((0, "lowest"), (1, "highest")):
        if all(optimum.censored[end] for optimum in available):
            return f"every optimum may lie at the {word} magnitude or beyond"
    trend = math.fsum(rank * optimum.at for rank, optimum in zip(ranks, available, strict=True))
    interval = 2 * t_quantile(0.5 + LEVEL / 2, math.inf)  # its width, in standard errors
    error = math.hypot(
        *(rank * (o.high - o.low) / interval for rank, o in zip(ranks, available, strict=True))
    )
    if direction * trend <= t_quantile(1 - ALPHA, math.inf) * error:
        return "the optima move by no more than their intervals"
    return ""


A1 = Claim(
    name="A1",
    statement="the best magnitude rises with size",
    select=_dense_sizes,
    test=optimum_moves(1),
    describe_cost=unequal_work,  # within a size: larger ones need more by nature
)
A2 = Claim(
    name="A2",
    statement="the best magnitude falls with sparsity",
    select=_sparsities,
    test=optimum_moves(-1),
    check_budget=check_budget,  # within a sparsity: paths to more sparsity are longer by nature
    describe_cost=unequal_work,
)
