"""What each claim comes down to: one effect with its error, from the cells of a group of rows.

A positive effect is in the direction that the claim predicts, whatever the metric. Effects are of
test results; arms that are chosen first are chosen on validation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from analysis.best import (
    MOST_OPTIMA,
    NONE,
    Cell,
    Metric,
    cells_per_size,
    magnitude_key,
    smooth_optimum,
)
from analysis.budgets import Untestable, more_work, work
from analysis.render import interval, number
from analysis.stats import LEVEL as INTERVAL
from analysis.stats import (
    Estimate,
    contrast,
    mean,
    pooled,
    rank_correlation,
    t_quantile,
)

if TYPE_CHECKING:
    import pandas as pd

    from analysis.optimum import Optimum


LEVEL = 0.05
CONTROLS = {"prune_away": "weak_finish"}
"""Forms of surplus that finish weak, and the arm that does so without additional parameters."""
MOST_WORK = 1.5  # factor within which a longer `none` passes for one of equal multiply-adds


@dataclass(frozen=True)
class Effect:
    """An estimate, its p-value before correction over groups, and what was compared."""

    estimate: Estimate
    p: float
    seeds: float  # per cell, mean; NaN where more of them would settle nothing
    compared: str
    doubt: str = ""  # what keeps it from a verdict, however small its p
    control: bool = False  # of an arm that is there to be compared with, and is no claim


Test = Callable[["pd.DataFrame", list[str], Metric], list[Effect]]
Cells = tuple[Cell, ...]  # of one size
Arm = tuple[Any, float | None]  # form of surplus; epochs, where they differ
Arms = Mapping[Arm, Mapping[float | str, Cell]]


def _effect(estimate: Estimate, cells: Sequence[Cell], compared: str) -> Effect:
    return Effect(estimate, estimate.p, mean([len(cell.test) for cell in cells]), compared)


def optimum_moves(direction: int) -> Test:
    """A1 and A2: the linear-by-linear interaction of the rank of the size and the magnitude.

    Its unit is the change, from one size to the next, of the slope over the whole scale of
    magnitudes. Strata (the widths of A2) count alike. It also answers to slopes that differ
    while one magnitude is best everywhere, so without winners that move there is no verdict.
    """

    def test(rows: pd.DataFrame, columns: list[str], metric: Metric) -> list[Effect]:
        strata: dict[tuple[Any, ...], list[tuple[Cell, ...]]] = {}
        for size, cells, _ in cells_per_size(rows, columns, metric):
            strata.setdefault(tuple(size[n] for n in columns[:-1]), []).append(cells)
        complete = [found for found in map(_complete, strata.values()) if found[0]]
        grids, sizes = [grid for grid, _ in complete], [cells for _, cells in complete]
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
        found = _effect(contrast(groups), every, told)
        if not found.p < LEVEL:
            return [found]
        way = direction * (1 if found.estimate.effect > 0 else -1)
        return [replace(found, doubt=_stays(sizes, way, columns[-1], metric))]

    return test


def _stays(strata: Sequence[Sequence[Cells]], way: int, column: str, metric: Metric) -> str:
    """Why the best magnitude cannot be said to go up (`way` 1) or down (-1); empty where it can.

    Over the ranks of the sizes both the magnitudes that validation chose and the smooth optima must
    go that way, these by more than their intervals (one-sided 5 %), and not all of the optima may
    lie at one and the same end of the grid. Where slopes differ and nothing moves, 0 to 1 % of
    simulations pass; of optima that move inside the grid by a step per size, 98 % do.
    """
    differ = "slopes differ, the best magnitude itself is not shown to move"
    chosen = [[_winner(cells, metric) for cells in sizes] for sizes in strata]
    order = sorted({m for line in chosen for m in line}, key=magnitude_key)
    ranks = [at - (len(sizes) - 1) / 2 for sizes in strata for at in range(len(sizes))]
    places = [order.index(magnitude) for line in chosen for magnitude in line]
    if way * sum(r * place for r, place in zip(ranks, places, strict=True)) <= 0:
        same = f"{number(order[0])} at every {column}"
        listed = "; ".join(", ".join(map(number, line)) for line in chosen)
        return f"{differ}: {listed if order[1:] else same}"
    every = [cells for sizes in strata for cells in sizes]
    spots = [_spot(cells, metric) for cells in every] if len(every) <= MOST_OPTIMA else []
    known = [spot for spot in spots if spot]
    if len(known) < len(ranks):
        few = f"not known at every {column}: that takes 3 magnitudes and 2 seeds, and "
        return f"{differ}: the optima are {few}at most {MOST_OPTIMA} sizes"
    for end, word in ((0, "lowest"), (1, "highest")):
        if all(spot.censored[end] for spot in known):
            return f"{differ}: every optimum may lie at the {word} magnitude or beyond"
    normal = t_quantile(0.5 + INTERVAL / 2, math.inf)
    drift = math.fsum(r * spot.at for r, spot in zip(ranks, known, strict=True))
    error = math.hypot(
        *(r * (spot.high - spot.low) / (2 * normal) for r, spot in zip(ranks, known, strict=True))
    )
    if way * drift <= t_quantile(1 - LEVEL, math.inf) * error:
        return f"{differ}: the intervals of the optima hold one and the same"
    return ""


def _winner(cells: Cells, metric: Metric) -> float | str:
    running = [cell for cell in cells if cell.usable]
    return max(running, key=lambda cell: metric.sign * cell.mean_val).magnitude


def _spot(cells: Cells, metric: Metric) -> Optimum | None:
    running = [cell for cell in cells if cell.usable]
    return smooth_optimum(running, pooled([cell.val for cell in running]), metric)


def _complete(sizes: Sequence[Cells]) -> tuple[list[list[Cell]], list[Cells]]:
    """Cells by size and magnitude, without gaps, and all cells of these sizes.

    Sizes that have little yet are left out: of the sizes with the most magnitudes, as many as
    leave the most independent interactions.
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
    kept = sorted(fullest[:best])
    chosen = [usable[at] for at in kept]
    common = [m for m in chosen[0] if all(m in cells for cells in chosen)] if chosen else []
    return [[cells[m] for m in common] for cells in chosen], [sizes[at] for at in kept]


def beats(
    kind: Callable[[Any], str], new: str, old: str, tell: Callable[[Any], str] = number
) -> Test:
    """A3 and C2: the best arm of the kind `new` against the best `old` one, chosen on validation.

    Arms of other kinds are controls: each kind gets a line of its own, which decides nothing.
    `tell` names an arm by its value. A winner of many is flattered wherever test and validation
    share the luck of a run. Two winners of equally many cancel; else p is multiplied by the ratio
    of their numbers (without it a flat truth was rejected in up to 10 % of simulations with 6 arms
    against 1, with it in 2 %).
    """

    def test(rows: pd.DataFrame, columns: list[str], metric: Metric) -> list[Effect]:
        arms: dict[str, list[tuple[str, Cell]]] = {new: [], old: []}
        for size, cells, _ in cells_per_size(rows, columns, metric):
            value = size[columns[0]]
            arms.setdefault(kind(value), []).extend(
                (f"{tell(value)} at {number(c.magnitude)}", c) for c in cells if c.usable
            )
        for word in (new, old):
            if not arms[word]:
                raise Untestable(f"no {word} arm is done")
        every = [cell for found in arms.values() for _, cell in found]
        best = {
            word: max(found, key=lambda arm: metric.sign * arm[1].mean_val)
            for word, found in arms.items()
            if found
        }
        effects = []
        for word in (name for name in best if name != old):
            signs = {id(best[word][1]): metric.sign, id(best[old][1]): -metric.sign}
            found = contrast([[(float(signs.get(id(cell), 0)), cell.test) for cell in every]])
            count = len(arms[word]) + len(arms[old])
            told = f"{best[word][0]} against {best[old][0]} ({count} arms)"
            effect = _effect(found, every, told)
            more, fewer = sorted((len(arms[word]), len(arms[old])), reverse=True)
            p = min(1.0, found.p * more / fewer)
            effects.append(replace(effect, p=p, control=word != new))
        return effects

    return test


def surplus_helps(rows: pd.DataFrame, columns: list[str], metric: Metric) -> list[Effect]:
    """B: what strength changes with surplus, less what it changes without; one per form.

    A form has to do better than `none`, than the control of its schedule (`CONTROLS`), and than a
    longer `none` of as many multiply-adds, wherever these are in the rows: the least of the
    effects is the form's, for all of them must hold (an intersection-union test).
    """
    arms: dict[Arm, dict[float | str, Cell]] = {}
    for size, cells, _ in cells_per_size(rows, columns, metric):
        arm = size["surplus"], size.get("epochs")
        arms[arm] = {cell.magnitude: cell for cell in cells if cell.usable}
    spent = work(rows, columns)
    found = []
    for form, epochs in arms:
        if form == NONE or form in CONTROLS.values():
            continue
        against = _controls(form, epochs, arms, spent)
        both = [m for m in arms.get((NONE, epochs), {}) if m in arms[form, epochs]]
        if len(both) < 2:
            continue
        found.append(_surplus(arms, (form, epochs), against, (both[0], both[-1]), spent, metric))
    if not found:
        raise Untestable("it needs two magnitudes, each with surplus and without (`none`)")
    return found


def _controls(form: Any, epochs: float | None, arms: Arms, spent: Mapping[Arm, float]) -> list[Arm]:
    """`none`, the control of the form's schedule, and the `none` nearest in multiply-adds."""
    found = [(NONE, epochs), (CONTROLS.get(form), epochs)]
    longer = [
        (abs(math.log(spent[arm] / spent[form, epochs])), arm)
        for arm in arms
        if arm[0] == NONE and arm[1] != epochs and spent.get(arm) and spent.get((form, epochs))
    ]
    if longer and min(longer)[0] < math.log(MOST_WORK):
        found.append(min(longer)[1])
    return [arm for arm in found if arm in arms]


def _surplus(
    arms: Arms,
    arm: Arm,
    against: Sequence[Arm],
    ends: tuple[float | str, float | str],
    spent: Mapping[Arm, float],
    metric: Metric,
) -> Effect:
    """The least favourable of the form's effects against each of its controls."""
    weak, strong = ends
    made, open_ = [], []
    for control in against:
        cells = arms[control]
        if weak not in cells or strong not in cells:
            open_.append(_named(control))
            continue
        signed = [
            (1, arms[arm][strong]), (-1, arms[arm][weak]), (-1, cells[strong]), (1, cells[weak]),
        ]  # fmt: skip
        made.append((_named(control), _once(signed, metric), [cell for _, cell in signed]))
    up = {estimate.effect > 0 for _, estimate, _ in made}
    name, least, cells_of = max(made, key=lambda line: (line[1].p != line[1].p, line[1].p))
    if len(up) > 1:
        name, least, cells_of = min(made, key=lambda line: line[1].effect)
    told = f"{arm[0]} against {name}, magnitude {number(weak)} to {number(strong)}"
    for other, estimate, _ in made:
        if other != name:
            shown = interval(estimate.effect, estimate.half, metric, signed=True)
            told += f"; against {other} {shown}"
    told += more_work([(str(arm[0]), arm), *((_named(c), c) for c in against)], spent)
    doubt = "; ".join(
        [*(f"its control {name} is not done" for name in open_)]
        + ["not against each of its controls"] * (len(up) > 1)
    )
    return replace(_effect(least, cells_of, told), doubt=doubt)


def _named(arm: Arm) -> str:
    return str(arm[0]) if arm[1] is None else f"{arm[0]} of {number(arm[1])} epochs"


def _once(signed: Sequence[tuple[int, Cell]], metric: Metric) -> Estimate:
    """The contrast; cells of the same runs (arms that share their stages) count as one."""
    weights: dict[Any, float] = {}
    cells: dict[Any, Cell] = {}
    for sign, cell in signed:
        key = cell.runs or id(cell)
        weights[key] = weights.get(key, 0.0) + metric.sign * sign
        cells[key] = cell
    return contrast([[(weight, cells[key].test) for key, weight in weights.items()]])


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
