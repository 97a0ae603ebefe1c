"""Figures of a sweep, for paper and screen: colour-blind safe, one column wide, seeds as dots.

python -m analysis.figures grid=quickstart out=out/quickstart    # every figure the rows allow
python -m analysis.figures rows=rows.csv by=width where="sparsity == 0" metric=loss
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.best import METRICS, NONE, TOP1, Best, Cell, Metric, best_per_size
from analysis.curves import difficulty_against_accuracy, metric_against_sparsity
from analysis.drawing import (
    COLOURS,
    MARKERS,
    POINTS,
    add_legend,
    canvas,
    colour_and_dash,
    dots,
    finish_magnitudes,
    label,
    place_of,
    save,
    tip,
)
from analysis.render import interval, number, place
from analysis.rows import load, names, split_args
from analysis.stats import half_width
from harness.errors import UserError, command, nearest

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

KNOBS = ("rows", "by", "where", "metric", "out")


def accuracy_against_magnitude(found: Sequence[Best], metric: Metric = TOP1) -> Figure:
    """Mean test result against magnitude, a line per size.

    `none` is a point of its own, left of 0. Bands are 95 % t intervals with the pooled spread,
    dots are seeds, the open circle is the magnitude that validation chose.
    """
    figure, axes = canvas()
    for position, line in enumerate(found):
        cells = [cell for cell in line.cells if cell.val]
        values = {cell.magnitude: cell.mean_test for cell in cells}
        halves = {cell.magnitude: half_width(line.spread, len(cell.test)) for cell in cells}
        _curve(axes, found, position, values, halves, metric)
        for cell in cells:
            dots(axes, place_of(cell.magnitude, found), cell.test, metric, position)
    finish_magnitudes(axes, found)
    axes.set_ylabel(label("test", metric))
    add_legend(figure, axes)
    return figure


def change_against_none(found: Sequence[Best], metric: Metric = TOP1) -> Figure | None:
    """Mean test result against the same size's own `none`: crossings show without the offset."""
    lines = [line for line in found if any(_is_none(cell) and cell.val for cell in line.cells)]
    if not lines:
        return None
    figure, axes = canvas()
    axes.axhline(0.0, color="0.6", linewidth=0.8)
    for position, line in enumerate(found):
        if line not in lines:
            continue
        none = next(cell for cell in line.cells if _is_none(cell))
        cells = [cell for cell in line.cells if cell.val and not _is_none(cell)]
        changes = {cell.magnitude: cell.mean_test - none.mean_test for cell in cells}
        halves = {
            cell.magnitude: half_width(line.spread, len(cell.test), len(none.test))
            for cell in cells
        }
        _curve(axes, found, position, changes, halves, metric)
        for cell in cells:
            shifted = [value - none.mean_test for value in cell.test]
            dots(axes, place_of(cell.magnitude, found), shifted, metric, position)
    finish_magnitudes(axes, found, with_none=False)
    axes.set_ylabel(f"change from none, {label('test', metric)}")
    add_legend(figure, axes)
    return figure


def optimum_against_params(found: Sequence[Best]) -> Figure | None:
    """Smooth optimum and its interval against non-zero parameters; the tie set as a thin bar.

    An arrow stands where the grid's end cuts the interval off.
    """
    lines = [line for line in found if line.optimum and line.params]
    if not lines:
        return None
    figure, axes = canvas()
    for line in lines:
        position = found.index(line)
        colour, _ = colour_and_dash(position)
        spot, x = line.optimum, float(line.params or 0)
        assert spot is not None
        tied = [float(m) for m in line.ties if m != NONE]
        if tied:
            axes.plot([x * 1.06] * 2, [min(tied), max(tied)], color=colour, linewidth=1, alpha=0.5)
        axes.plot([x, x], [spot.low, spot.high], color=colour, linewidth=2)
        for cut, end, shape in zip(spot.censored, spot.ends, "v^", strict=True):
            if cut:
                axes.plot([x], [end], shape, color=colour, markersize=6)
        shape = MARKERS[position // len(COLOURS) % len(MARKERS)]
        drawn = axes.plot([x], [spot.at], shape, color=colour, markersize=5, label=_name(line))
        tip(drawn[0], f"{_name(line)}: optimum {place(spot)}")
    axes.set_xscale("log")
    axes.set_xlabel("non-zero parameters")
    axes.set_ylabel("best magnitude (validation)")
    add_legend(figure, axes)
    return figure


def heat_map(found: Sequence[Best], metric: Metric = TOP1) -> Figure:
    """Sizes x magnitudes: test result less the row's best by validation; ties are outlined."""
    import numpy as np
    from matplotlib.patches import Rectangle

    magnitudes = list(dict.fromkeys(cell.magnitude for line in found for cell in line.cells))
    magnitudes.sort(key=lambda m: -1.0 if m == NONE else float(m))
    change = np.full((len(found), len(magnitudes)), math.nan)
    for row, line in enumerate(found):
        for cell in line.cells:
            if cell.val and line.best:
                at = magnitudes.index(cell.magnitude)
                change[row, at] = metric.scale * (cell.mean_test - line.best.mean_test)
    figure, axes = canvas(height=0.9 + 0.28 * len(found))
    most = float(np.nanmax(np.abs(change))) if not np.isnan(change).all() else 1.0
    axes.imshow(change, cmap="PuOr", vmin=-most or -1, vmax=most or 1, aspect="auto")
    for row, line in enumerate(found):
        for cell in line.cells:
            column = magnitudes.index(cell.magnitude)
            known = not math.isnan(change[row, column])
            text = f"{change[row, column]:+.{metric.digits}f}" if known else "-"
            dark = known and abs(change[row, column]) > 0.6 * most
            axes.text(column, row, text, ha="center", va="center", fontsize=6,
                      color="white" if dark else "black")  # fmt: skip
            if cell.magnitude in line.ties:
                thick = 1.6 if cell is line.best else 0.7
                corner = (column - 0.46, row - 0.46)
                axes.add_patch(Rectangle(corner, 0.92, 0.92, fill=False, linewidth=thick))
    axes.set_xticks(range(len(magnitudes)), [number(m) for m in magnitudes])
    axes.set_yticks(range(len(found)), [_name(line) for line in found])
    axes.set_xlabel("magnitude")
    axes.set_title(f"change from best, {label('test', metric)}; boxed: ties", fontsize=POINTS)
    return figure


def _curve(
    axes: Any,
    found: Sequence[Best],
    position: int,
    values: Mapping[float | str, float],
    halves: Mapping[float | str, float],
    metric: Metric,
) -> None:
    """One size's line with its band, `none` detached, the chosen magnitude circled."""
    line = found[position]
    colour, dash = colour_and_dash(position)
    joined = [m for m in values if m != NONE]
    x = [float(m) for m in joined]
    y = [metric.scale * values[m] for m in joined]
    axes.plot(x, y, dash, color=colour, label=_name(line), linewidth=1.2)
    half = [metric.scale * halves[m] for m in joined]
    if x and not any(map(math.isnan, half)):
        low = [value - width for value, width in zip(y, half, strict=True)]
        high = [value + width for value, width in zip(y, half, strict=True)]
        axes.fill_between(x, low, high, color=colour, alpha=0.12, linewidth=0)
    for magnitude, value in values.items():
        at, shown = place_of(magnitude, found), metric.scale * value
        mark = axes.plot([at], [shown], "_" if magnitude == NONE else "o", color=colour,
                         markersize=8 if magnitude == NONE else 2.5)  # fmt: skip
        told = interval(value, halves[magnitude], metric)
        tip(mark[0], f"{_name(line)}, magnitude {number(magnitude)}: {told}")
        if line.best and magnitude == line.best.magnitude:
            axes.plot([at], [shown], "o", mec=colour, mfc="none", markersize=8)


def _is_none(cell: Cell) -> bool:
    return cell.magnitude == NONE


def _name(line: Best) -> str:
    return ", ".join(f"{key} {number(value)}" for key, value in line.size.items()) or "all"


def figures(frame: pd.DataFrame, found: Sequence[Best], metric: Metric = TOP1) -> dict[str, Figure]:
    """Every figure that the rows allow, by name."""
    made = {
        "accuracy_against_magnitude": accuracy_against_magnitude(found, metric),
        "change_against_none": change_against_none(found, metric),
        "optimum_against_params": optimum_against_params(found),
        "heat_map": heat_map(found, metric),
        "accuracy_against_sparsity": metric_against_sparsity(frame, metric),
        "difficulty_against_accuracy": difficulty_against_accuracy(frame, metric),
    }
    return {name: figure for name, figure in made.items() if figure is not None}


def main(args: list[str]) -> int:
    """The command."""
    from analysis.table import selected

    if not args or args[0] in ("--help", "-h"):
        print(__doc__)
        return 0
    rest, own = split_args(args, KNOBS)
    wanted = own.get("metric", "top1")
    if wanted not in METRICS:
        raise UserError(f"metric={wanted} is not known{nearest(wanted, METRICS)}")
    frame = selected(load(rest, own.get("rows")), own.get("where"))
    found = best_per_size(frame, names(own["by"]) if "by" in own else None, METRICS[wanted])
    for name, figure in figures(frame, found, METRICS[wanted]).items():
        for path in save(figure, Path(own.get("out", "out")) / name):
            print(path)
    return 0


if __name__ == "__main__":
    command(main)
