"""Figures of a sweep, for paper and screen: colour-blind safe, one column wide, seeds as dots.

python -m analysis.figures grid=quickstart out=out/quickstart    # every figure the rows allow
python -m analysis.figures rows=rows.csv by=width where="sparsity == 0" metric=loss
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

from analysis.best import METRICS, NONE, TOP1, Best, Cell, Metric, best_per_size
from analysis.curves import MOST_PANELS, difficulty_against_accuracy, metric_against_sparsity
from analysis.drawing import (
    COLOURS,
    DASHES,
    MARKERS,
    POINTS,
    add_legend,
    canvas,
    colour_and_dash,
    dots,
    finish_magnitudes,
    label,
    mark_interim,
    panels,
    place_of,
    plain,
    save,
    tip,
)
from analysis.render import interval, number, place
from analysis.rows import choice, load, names, split_args
from analysis.stats import half_width
from harness.errors import command
from harness.verb import callable_module

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

KNOBS = ("rows", "by", "where", "metric", "out")
MOST_LINES = len(COLOURS) * len(DASHES)
MOST_ROWS = 60  # of the heat map: a page


def accuracy_against_magnitude(found: Sequence[Best], metric: Metric = TOP1) -> Figure:
    """Mean test result against magnitude, a line per size.

    `none` is a point of its own, left of 0. Bands are 95 % t intervals with the pooled spread,
    dots are seeds, the open circle is the magnitude that validation chose. Many sizes get a panel
    for each value of one of their columns.
    """

    def draw(axes: Any, line: Best, name: str, position: int) -> None:
        cells = [cell for cell in line.cells if cell.val]
        values = {cell.magnitude: cell.mean_test for cell in cells}
        halves = {cell.magnitude: half_width(line.spread, len(cell.test)) for cell in cells}
        _curve(axes, found, line, name, position, values, halves, metric)
        for cell in cells:
            dots(axes, place_of(cell.magnitude, found), cell.test, metric, position)

    figure = _panelled(found, found, draw, label("test", metric))
    for axes in figure.axes:
        finish_magnitudes(axes, found)
    return figure


def change_against_none(found: Sequence[Best], metric: Metric = TOP1) -> Figure | None:
    """Mean test result against the same size's own `none`: crossings show without the offset."""
    lines = [line for line in found if any(_is_none(cell) and cell.val for cell in line.cells)]
    if not lines:
        return None

    def draw(axes: Any, line: Best, name: str, position: int) -> None:
        none = next(cell for cell in line.cells if _is_none(cell))
        cells = [cell for cell in line.cells if cell.val and not _is_none(cell)]
        changes = {cell.magnitude: cell.mean_test - none.mean_test for cell in cells}
        halves = {
            cell.magnitude: half_width(line.spread, len(cell.test), len(none.test))
            for cell in cells
        }
        _curve(axes, found, line, name, position, changes, halves, metric)
        for cell in cells:
            shifted = [value - none.mean_test for value in cell.test]
            dots(axes, place_of(cell.magnitude, found), shifted, metric, position)

    figure = _panelled(found, lines, draw, f"change from none, {label('test', metric)}")
    for axes in figure.axes:
        axes.axhline(0.0, color="0.6", linewidth=0.8, zorder=0)
        finish_magnitudes(axes, found, with_none=False)
    return figure


def _panelled(
    found: Sequence[Best],
    lines: Sequence[Best],
    draw: Callable[[Any, Best, str, int], None],
    words: str,
) -> Figure:
    """A figure of `lines`; as many panels as it takes for the lines of one to differ in colour.

    A panel is a value of one size column; colours belong to what is left of the size.
    """
    parted = _panel_column(found)
    columns = [name for name in (found[0].size if found else ()) if name != parted]
    values = list(dict.fromkeys(line.size[parted] for line in found)) if parted else [None]
    names = {id(line): _name(line, columns) for line in found}
    looks = {name: at for at, name in enumerate(dict.fromkeys(names.values()))}
    figure, each = panels(len(values), 2.5 if len(values) == 1 else 1.7)
    for axes, value in zip(each, values, strict=True):
        if parted:
            axes.set_title(plain(f"{parted} {number(value)}"), fontsize=POINTS)
        for line in lines:
            if parted is None or line.size[parted] == value:
                draw(axes, line, names[id(line)], looks[names[id(line)]])
    for axes in each[-2:]:
        axes.set_xlabel("augmentation magnitude")
    figure.supylabel(words, fontsize=POINTS)
    add_legend(figure, each)
    return figure


def _panel_column(found: Sequence[Best]) -> str | None:
    """The last size column whose values part `found` into panels of few enough lines."""
    if len(found) <= len(COLOURS):
        return None
    for column in reversed(list(found[0].size)):
        counts = Counter(line.size[column] for line in found)
        if 1 < len(counts) <= MOST_PANELS and max(counts.values()) <= len(COLOURS):
            return column
    return None


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
        drawn = axes.plot([x], [spot.at], shape, color=colour, markersize=5,
                          label=plain(_name(line)))  # fmt: skip
        tip(drawn[0], f"{_name(line)}: optimum {place(spot)}")
    axes.set_xscale("log")
    axes.set_xlabel("non-zero parameters")
    axes.set_ylabel("best magnitude (validation)")
    add_legend(figure, [axes])
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
    axes.set_yticks(range(len(found)), [fill(plain(_name(line)), 28) for line in found])
    axes.set_xlabel("magnitude")
    words = f"change from best, {label('test', metric)}; boxed: ties"
    axes.set_title(fill(words, 36), fontsize=POINTS)
    return figure


def _curve(
    axes: Any,
    found: Sequence[Best],
    line: Best,
    name: str,
    position: int,
    values: Mapping[float | str, float],
    halves: Mapping[float | str, float],
    metric: Metric,
) -> None:
    """One size's line with its band, `none` detached, the chosen magnitude circled."""
    colour, dash = colour_and_dash(position)
    joined = [m for m in values if m != NONE]
    x = [float(m) for m in joined]
    y = [metric.scale * values[m] for m in joined]
    axes.plot(x, y, dash, color=colour, label=plain(name), linewidth=1.2)
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


def _name(line: Best, columns: Sequence[str] | None = None) -> str:
    """`width 0.5, sparsity 0.9`, of all size columns unless told which."""
    shown = line.size if columns is None else columns
    return ", ".join(f"{key} {number(line.size[key])}" for key in shown) or "all"


def figures(frame: pd.DataFrame, found: Sequence[Best], metric: Metric = TOP1) -> dict[str, Figure]:
    """Every figure that the rows allow, by name; none of more sizes than can be told apart."""
    made: dict[str, Figure | None] = {}
    if len(found) <= MOST_LINES:
        made = {
            "accuracy_against_magnitude": accuracy_against_magnitude(found, metric),
            "change_against_none": change_against_none(found, metric),
            "optimum_against_params": optimum_against_params(found),
        }
    if len(found) <= MOST_ROWS:
        made |= {
            "heat_map": heat_map(found, metric),
            "accuracy_against_sparsity": metric_against_sparsity(frame, metric),
            "difficulty_against_accuracy": difficulty_against_accuracy(frame, metric),
        }
    drawn = {name: figure for name, figure in made.items() if figure is not None}
    for figure in drawn.values():
        mark_interim(figure, int((frame["state"] == "done").sum()), len(frame))
    return drawn


def left_out(found: Sequence[Best]) -> str:
    """Which figures so many sizes leave out, and what to do; empty where they are all drawn."""
    if len(found) <= MOST_LINES:
        return ""
    which = "figures" if len(found) > MOST_ROWS else "figures with a line per size"
    return f"{len(found):,} sizes are too many for {which}: choose some with where= or by="


def main(args: list[str]) -> int:
    """The command."""
    from analysis.table import selected

    if not args or args[0] in ("--help", "-h"):
        print(__doc__)
        return 0
    rest, own = split_args(args, KNOBS)
    metric = METRICS[choice(own, "metric", METRICS, "top1")]
    frame = selected(load(rest, own.get("rows")), own.get("where"))
    found = best_per_size(frame, names(own["by"]) if "by" in own else None, metric)
    for name, figure in figures(frame, found, metric).items():
        for path in save(figure, Path(own.get("out", "out")) / name):
            print(path)
    if said := left_out(found):
        print(f"note: {said}")
    return 0


callable_module(__name__)
if __name__ == "__main__":
    command(main)
