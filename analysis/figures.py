"""Figures of a sweep, for paper and screen: colour-blind safe, one column wide, seeds as dots.

python -m analysis.figures grid=quickstart out=out/quickstart    # every figure the rows allow
python -m analysis.figures rows=rows.csv by=width where="sparsity == 0" metric=loss
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.best import METRICS, NONE, TOP1, Best, Metric, best_per_size
from analysis.curves import (
    MOST_PANELS,
    PANEL_LINE,
    difficulty_against_accuracy,
    metric_against_sparsity,
)
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
    name_of,
    names_of,
    panels,
    place_of,
    plain,
    save,
    tip,
)
from analysis.render import count, interval, number, place
from analysis.rows import load
from analysis.stats import half_width
from harness.arguments import Option, split_options
from harness.errors import command
from harness.verb import callable_module

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

OPTIONS = {
    "rows": Option(),
    "by": Option(list, example="width,sparsity"),
    "where": Option(),
    "metric": Option(default="top1", choices=METRICS),
    "out": Option(default="out"),
}
MOST_LINES = len(COLOURS) * len(DASHES)
MOST_ROWS = 60  # of the heat map: a page
MOST_COLUMNS = 7  # of it that have room for numbers side by side
HEAT_LINE = 24  # characters of a name beside it


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
            at = place_of(cell.magnitude, found) + _aside(found, line, position)
            dots(axes, at, cell.test, metric, position)

    figure = _panelled(found, found, draw, label("test", metric))
    for axes in figure.axes:
        finish_magnitudes(axes.xaxis, found)
    return figure


def change_against_none(found: Sequence[Best], metric: Metric = TOP1) -> Figure | None:
    """Mean test result against the same size's own `none`: crossings show without the offset."""
    lines = [line for line in found if line.none]
    if not lines:
        return None

    def draw(axes: Any, line: Best, name: str, position: int) -> None:
        none = line.none
        assert none is not None
        cells = [cell for cell in line.cells if cell.val and cell.magnitude != NONE]
        changes = {cell.magnitude: cell.mean_test - none.mean_test for cell in cells}
        halves = {
            cell.magnitude: half_width(line.spread, len(cell.test), len(none.test))
            for cell in cells
        }
        _curve(axes, found, line, name, position, changes, halves, metric)
        for cell in cells:
            shifted = [value - none.mean_test for value in cell.test]
            at = place_of(cell.magnitude, found) + _aside(found, line, position)
            dots(axes, at, shifted, metric, position)

    figure = _panelled(found, lines, draw, label("against none, test", metric, True))
    for axes in figure.axes:
        axes.axhline(0.0, color="0.6", linewidth=0.8, zorder=0)
        finish_magnitudes(axes.xaxis, found, with_none=False)
        if len(places := axes.get_xticks()) == 1:
            axes.set_xlim(places[0] - 0.2, places[0] + 0.2)
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
    names = {id(line): name for line, name in zip(found, names_of(found, columns), strict=True)}
    looks = {name: at for at, name in enumerate(dict.fromkeys(names.values()))}
    figure, each = panels(len(values), 2.5 if len(values) == 1 else 1.7)
    for axes, value in zip(each, values, strict=True):
        if parted:
            axes.set_title(plain(f"{parted} {number(value)}", PANEL_LINE), fontsize=POINTS)
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
    """Smooth optimum and its interval against non-zero parameters, with what validation chose.

    An open circle is the magnitude chosen, short dashes are those that tie with it; `none` is a
    level of its own. An arrow stands where the grid's end cuts the interval off.
    """
    lines = [line for line in found if line.optimum and line.params]
    if not lines:
        return None
    figure, axes = canvas()
    names = dict(zip(map(id, found), names_of(found), strict=True))
    places = _side_by_side([float(line.params or 0) for line in lines])
    for line, x in zip(lines, places, strict=True):
        position = found.index(line)
        colour, _ = colour_and_dash(position)
        spot, name = line.optimum, names[id(line)]
        assert spot is not None
        axes.plot([x, x], [spot.low, spot.high], color=colour, linewidth=2)
        for cut, end, off, shape in zip(spot.censored, spot.ends, (-0.05, 0.05), "v^", strict=True):
            if cut:
                axes.plot([x, x], [end, end + off], color=colour, linewidth=2)
                axes.plot([x], [end + off], shape, color=colour, markersize=6)
        shape = MARKERS[position // len(COLOURS) % len(MARKERS)]
        drawn = axes.plot([x], [spot.at], shape, color=colour, mec="white", mew=0.7,
                          markersize=5.5, label=plain(name), zorder=3)  # fmt: skip
        tip(drawn[0], f"{name}: optimum {place(spot)}")
        for magnitude in line.ties:
            chosen = line.best is not None and magnitude == line.best.magnitude
            word = "chosen" if chosen else "ties"
            mark = axes.plot([x], [place_of(magnitude, found)], "o" if chosen else "_",
                             color=colour, mfc="none", markersize=9 if chosen else 8)  # fmt: skip
            tip(mark[0], f"{name}: magnitude {number(magnitude)} {word} on validation")
    axes.set_xscale("log")
    axes.minorticks_off()
    sizes = _apart(sorted({float(line.params or 0) for line in lines}), 1.25)
    axes.set_xticks(sizes, [count(size) for size in sizes])
    low, high = min(places), max(places)
    axes.set_xlim(low / 1.6, high * 1.6)
    axes.set_xlabel("non-zero parameters")
    axes.set_ylabel("best magnitude (validation)")
    finish_magnitudes(axes.yaxis, found)
    ends = axes.get_yticks()
    room = 0.07 * (ends[-1] - ends[0])
    axes.set_ylim(ends[0] - room, ends[-1] + room)
    add_legend(figure, [axes])
    return figure


def _side_by_side(sizes: Sequence[float]) -> list[float]:
    """Places on a log axis: what has the same size stands beside each other around it."""
    step = max(max(sizes) / min(sizes), 2.0) ** 0.04
    found, seen = [], Counter[float]()
    for size in sizes:
        found.append(size * step ** (seen[size] - (sizes.count(size) - 1) / 2))
        seen[size] += 1
    return found


def _apart(ticks: Sequence[float], factor: float) -> list[float]:
    """Of rising ticks those that are far enough from the one before to be read."""
    least = max(factor, (ticks[-1] / ticks[0]) ** 0.1)
    kept: list[float] = []
    for tick in ticks:
        if not kept or tick >= kept[-1] * least:
            kept.append(tick)
    return kept


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
    names = [plain(name, HEAT_LINE) for name in names_of(found)]
    rows = max(name.count("\n") + 1 for name in names)
    figure, axes = canvas(height=0.9 + max(0.28, 0.15 * rows) * len(found))
    most = float(np.nanmax(np.abs(change))) if not np.isnan(change).all() else 1.0
    axes.imshow(change, cmap="PuOr", vmin=-most or -1, vmax=most or 1, aspect="auto")
    for row, line in enumerate(found):
        for cell in line.cells:
            column = magnitudes.index(cell.magnitude)
            known = not math.isnan(change[row, column])
            text = f"{change[row, column]:+.{metric.digits}f}" if known else "-"
            dark = known and abs(change[row, column]) > 0.6 * most
            axes.text(column, row, text, ha="center", va="center", fontsize=POINTS - 2,
                      color="white" if dark else "black",
                      rotation=90 if len(magnitudes) > MOST_COLUMNS else 0)  # fmt: skip
            if cell.magnitude in line.ties:
                thick = 1.6 if cell is line.best else 0.7
                corner = (column - 0.46, row - 0.46)
                axes.add_patch(Rectangle(corner, 0.92, 0.92, fill=False, linewidth=thick))
    many = len(magnitudes) > MOST_COLUMNS
    axes.set_xticks(
        range(len(magnitudes)), [number(m) for m in magnitudes], rotation=90 if many else 0
    )
    axes.set_yticks(range(len(found)), names)
    axes.set_xlabel("magnitude (boxed: ties)")
    words = f"change from the best, {label('test', metric, True)}"
    axes.set_title(plain(words, 30), fontsize=POINTS)
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
        at = place_of(magnitude, found) + _aside(found, line, position)
        shown = metric.scale * value
        mark = axes.plot([at], [shown], "_" if magnitude == NONE else "o", color=colour,
                         markersize=8 if magnitude == NONE else 2.5)  # fmt: skip
        told = interval(value, halves[magnitude], metric)
        tip(mark[0], f"{name_of(line, list(line.size))}, magnitude {number(magnitude)}: {told}")
        if line.best and magnitude == line.best.magnitude:
            axes.plot([at], [shown], "o", color=colour, mfc="none", markersize=8)


def _aside(found: Sequence[Best], line: Best, position: int) -> float:
    """How far off its place a line of one magnitude is drawn: no curve tells it from others."""
    if sum(cell.magnitude != NONE for cell in line.cells) > 1:
        return 0.0
    return 0.02 * (position - (min(len(found), len(COLOURS)) - 1) / 2)


def figures(
    frame: pd.DataFrame,
    found: Sequence[Best],
    metric: Metric = TOP1,
    by: Sequence[str] | None = None,
) -> dict[str, Figure]:
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
            "accuracy_against_sparsity": metric_against_sparsity(frame, metric, by),
            "difficulty_against_accuracy": difficulty_against_accuracy(frame, metric, by),
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

    rest, options = split_options(args, OPTIONS)
    metric = METRICS[options["metric"]]
    frame = selected(load(rest, options["rows"]), options["where"])
    by = options["by"]
    found = best_per_size(frame, by, metric)
    for name, figure in figures(frame, found, metric, by).items():
        for path in save(figure, Path(options["out"]) / name):
            print(path)
    if said := left_out(found):
        print(f"note: {said}")
    return 0


callable_module(__name__)
if __name__ == "__main__":
    command(main, __doc__)
