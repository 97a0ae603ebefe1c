"""What each claim comes down to: one effect with its error, from the cells of a group of rows.

A positive effect is in the direction that the claim predicts, whatever the metric. Effects are of
test results; arms that are chosen first are chosen on validation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from analysis.best import NONE, Cell, Metric, cells_per_size
from analysis.render import number
from analysis.stats import Estimate, contrast, mean, rank_correlation, seeds_to_settle

if TYPE_CHECKING:
    import pandas as pd


class Untestable(Exception):
    """Why a claim cannot be tested on these rows."""


@dataclass(frozen=True)
class Effect:
    """An estimate, its p-value before correction over groups, and what was compared."""

    estimate: Estimate
    p: float
    seeds: float  # per cell, that would settle an effect of this size
    compared: str


Test = Callable[["pd.DataFrame", list[str], Metric], list[Effect]]


def _effect(estimate: Estimate, cells: Sequence[Cell], compared: str) -> Effect:
    seeds = seeds_to_settle(estimate, mean([len(cell.test) for cell in cells]))
    return Effect(estimate, estimate.p, seeds, compared)


def optimum_moves(direction: int) -> Test:
    """A1 and A2: the linear-by-linear interaction of the rank of the size and the magnitude.

    Its unit is the change, from one size to the next, of the slope over the whole scale of
    magnitudes. Strata (the widths of A2) count alike. It also answers to slopes that differ
    without an optimum between, so read it with the optima in the table.
    """

    def test(rows: pd.DataFrame, columns: list[str], metric: Metric) -> list[Effect]:
        strata: dict[tuple[Any, ...], list[tuple[Cell, ...]]] = {}
        for size, cells, _ in cells_per_size(rows, columns, metric):
            strata.setdefault(tuple(size[n] for n in columns[:-1]), []).append(cells)
        grids = [grid for grid in map(_complete, strata.values()) if grid]
        if not grids:
            raise Untestable("no two sizes have two magnitudes in common that are done")
        groups = []
        for grid in grids:
            ranks = [at - (len(grid) - 1) / 2 for at in range(len(grid))]
            shared = [float(cell.magnitude) for cell in grid[0]]
            offsets = [m - mean(shared) for m in shared]
            unit = sum(r * r for r in ranks) * sum(d * d for d in offsets) * len(grids)
            for rank, line in zip(ranks, grid, strict=True):
                scale = direction * metric.sign * rank / unit
                groups.append([(scale * d, c.test) for d, c in zip(offsets, line, strict=True)])
        shape = " + ".join(f"{len(grid)} x {len(grid[0])}" for grid in grids)
        told = f"slope over magnitude, per step of {columns[-1]} ({shape} cells)"
        every = [cell for grid in grids for line in grid for cell in line]
        return [_effect(contrast(groups), every, told)]

    return test


def _complete(sizes: Sequence[tuple[Cell, ...]]) -> list[list[Cell]]:
    """Cells by size and magnitude, without gaps: sizes that have little yet are left out.

    Of the sizes with the most magnitudes, as many as leave the most independent interactions.
    """
    usable = [
        {c.magnitude: c for c in cells if c.usable and c.magnitude != NONE} for cells in sizes
    ]
    fullest = sorted(range(len(usable)), key=lambda at: -len(usable[at]))
    best, most, shared = 0, 0, dict.fromkeys(usable[fullest[0]])
    for count, at in enumerate(fullest, 1):
        shared = {magnitude: None for magnitude in shared if magnitude in usable[at]}
        if (count - 1) * (len(shared) - 1) > most:
            best, most = count, (count - 1) * (len(shared) - 1)
    chosen = [usable[at] for at in sorted(fullest[:best])]
    common = [m for m in chosen[0] if all(m in cells for cells in chosen)] if chosen else []
    return [[cells[m] for m in common] for cells in chosen]


def beats(is_new: Callable[[Any], bool], words: tuple[str, str]) -> Test:
    """A3 and C2: the best new arm against the best old one, chosen on validation.

    A winner of many is flattered wherever test and validation share the luck of a run. Two winners
    of equally many cancel; else p is multiplied by the ratio of their numbers (without it a flat
    truth was rejected in up to 10 % of simulations with 6 arms against 1, with it in 2 %).
    """

    def test(rows: pd.DataFrame, columns: list[str], metric: Metric) -> list[Effect]:
        arms: dict[bool, list[tuple[str, Cell]]] = {True: [], False: []}
        for size, cells, _ in cells_per_size(rows, columns, metric):
            value = size[columns[0]]
            arms[is_new(value)] += [
                (f"{number(value)} at {number(c.magnitude)}", c) for c in cells if c.usable
            ]
        for kind, word in zip((True, False), words, strict=True):
            if not arms[kind]:
                raise Untestable(f"no {word} arm is done")
        (new_name, new), (old_name, old) = (
            max(arms[kind], key=lambda arm: metric.sign * arm[1].mean_val) for kind in (True, False)
        )
        every = [cell for found in arms.values() for _, cell in found]
        signs = {id(new): metric.sign, id(old): -metric.sign}
        found = contrast([[(float(signs.get(id(cell), 0)), cell.test) for cell in every]])
        told = f"{new_name} against {old_name} ({len(every)} arms)"
        effect = _effect(found, every, told)
        more, fewer = sorted((len(arms[True]), len(arms[False])), reverse=True)
        return [Effect(found, min(1.0, found.p * more / fewer), effect.seeds, told)]

    return test


def surplus_helps(rows: pd.DataFrame, columns: list[str], metric: Metric) -> list[Effect]:
    """B: what strength changes with surplus, less what it changes without; one per form."""
    sizes = cells_per_size(rows, columns, metric)
    arms = {
        size[columns[0]]: {c.magnitude: c for c in cells if c.usable} for size, cells, _ in sizes
    }
    without = arms.pop(NONE, {})
    found = []
    for form, surplus in arms.items():
        both = [magnitude for magnitude in without if magnitude in surplus]
        if len(both) < 2:
            continue
        weak, strong = both[0], both[-1]
        signed = [
            (1, surplus[strong]), (-1, surplus[weak]), (-1, without[strong]), (1, without[weak]),
        ]  # fmt: skip
        estimate = contrast([[(float(metric.sign * sign), cell.test) for sign, cell in signed]])
        told = f"{form} against none, magnitude {number(weak)} to {number(strong)}"
        found.append(_effect(estimate, [cell for _, cell in signed], told))
    if not found:
        raise Untestable("it needs two magnitudes, each with surplus and without (`none`)")
    return found


def difficulty_orders(rows: pd.DataFrame, columns: list[str], metric: Metric) -> list[Effect]:
    """C1: Spearman's rank correlation of difficulty and what is lost."""
    points = [
        (float(size["difficulty"]), -metric.sign * cell.mean_test)
        for size, cells, _ in cells_per_size(rows, columns, metric)
        for cell in cells
        if cell.usable
    ]
    found = rank_correlation([d for d, _ in points], [lost for _, lost in points])
    if math.isnan(found.effect):
        raise Untestable("it needs five policies of different difficulty")
    return [Effect(found, found.p, math.nan, f"rank correlation over {len(points)} policies")]
