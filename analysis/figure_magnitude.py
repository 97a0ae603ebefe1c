"""Figures against magnitude, a line per size: the test result, and its change from `none`."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from analysis import drawing
from analysis.best import SizeResult
from analysis.cells import Cell
from analysis.columns import NONE, TOP1, Metric
from analysis.render import format_interval, format_value
from harness.statistics import difference, half_width


class Point(NamedTuple):
    """One cell as it is drawn: the mean, its interval and the seeds."""

    magnitude: float | str
    mean: float
    half: float  # half-width of the 95 % interval
    seeds: list[float]


def accuracy_against_magnitude(results: Sequence[SizeResult], metric: Metric = TOP1) -> Figure:
    """Draw the mean test result against magnitude, a line per size.

    `none` is a point of its own, left of 0. Bands are 95 % t intervals with the pooled spread,
    dots are seeds, the open circle is the magnitude that validation chose. Many sizes get a panel
    for each value of one of their columns.
    """
    lines = [_points(result) for result in results]
    figure = _draw(results, lines, drawing.label("test", metric), metric)
    for axes in figure.axes:
        drawing.finish_magnitudes(axes.xaxis, results)
    return figure


def change_against_none(results: Sequence[SizeResult], metric: Metric = TOP1) -> Figure | None:
    """Draw the mean test result minus the same size's own `none`: crossings show clearly.

    None where no size has a `none`.
    """
    if not any(result.none for result in results):
        return None
    lines = [_points(result, result.none) if result.none else None for result in results]
    figure = _draw(results, lines, drawing.label("against none, test", metric, True), metric)
    for axes in figure.axes:
        axes.axhline(0.0, color="0.6", linewidth=0.8, zorder=0)
        drawing.finish_magnitudes(axes.xaxis, results, with_none=False)
        if len(places := axes.get_xticks()) == 1:
            axes.set_xlim(places[0] - 0.2, places[0] + 0.2)
    return figure


def _points(result: SizeResult, none: Cell | None = None) -> list[Point]:
    """Return the cells that are done; their change from `none`, and without it, if it is given."""
    return [
        Point(
            cell.magnitude,
            cell.mean_test - (none.mean_test if none else 0.0),
            _half_width(result, cell, none),
            [value - (none.mean_test if none else 0.0) for value in cell.test],
        )
        for cell in result.cells
        if cell.val and not (none and cell.magnitude == NONE)
    ]


def _half_width(result: SizeResult, cell: Cell, none: Cell | None) -> float:
    spread = result.test_spreads[cell.magnitude]
    if none is None:
        return half_width(spread, len(cell.test))
    none_spread = result.test_spreads.get(none.magnitude, spread)
    return difference(cell.test, spread, none.test, none_spread).half


def _draw(
    results: Sequence[SizeResult], lines: Sequence[list[Point] | None], y_label: str, metric: Metric
) -> Figure:
    """Draw the line of each size, where it has one.

    Where one panel would hold more lines than there are colours, each value of one size column
    gets a panel; then a colour belongs to the rest of the size.
    """
    panel_column = _panel_column(results)
    values = list(dict.fromkeys(r.size[panel_column] for r in results)) if panel_column else [None]
    names = drawing.names_of(results, [name for name in results[0].size if name != panel_column])
    positions = {name: at for at, name in enumerate(dict.fromkeys(names))}
    figure, each = drawing.panels(len(values), 2.5 if len(values) == 1 else 1.7)
    for axes, value in zip(each, values, strict=True):
        if panel_column:
            title = f"{panel_column} {format_value(value)}"
            title = drawing.fit_text(title, drawing.PANEL_NAME_LENGTH)
            axes.set_title(title, fontsize=drawing.POINTS)
        for result, points, name in zip(results, lines, names, strict=True):
            is_here = panel_column is None or result.size[panel_column] == value
            if is_here and points is not None:
                _draw_line(axes, results, result, name, positions[name], points, metric)
    return drawing.finish(figure, each, "augmentation magnitude", y_label)


def _panel_column(results: Sequence[SizeResult]) -> str | None:
    """Return the last size column that divides the sizes into panels of few enough lines."""
    if len(results) <= len(drawing.COLOURS):
        return None
    for column in reversed(list(results[0].size)):
        counts = Counter(result.size[column] for result in results)
        if 1 < len(counts) <= drawing.MOST_PANELS and max(counts.values()) <= len(drawing.COLOURS):
            return column
    return None


def _draw_line(
    axes: Any,
    results: Sequence[SizeResult],
    result: SizeResult,
    name: str,
    position: int,
    points: Sequence[Point],
    metric: Metric,
) -> None:
    """Draw one size's line with its band and seeds; `none` is detached, the choice circled."""
    colour, dash = drawing.colour_and_dash(position)
    joined = [point for point in points if point.magnitude != NONE]
    x = [float(point.magnitude) for point in joined]
    y = [metric.scale * point.mean for point in joined]
    axes.plot(x, y, dash, color=colour, label=drawing.fit_text(name), linewidth=1.2)
    half = [metric.scale * point.half for point in joined]
    if x and not any(map(math.isnan, half)):
        low = [value - width for value, width in zip(y, half, strict=True)]
        high = [value + width for value, width in zip(y, half, strict=True)]
        axes.fill_between(x, low, high, color=colour, alpha=0.12, linewidth=0)
    offset = _offset(results, result, position)
    size_name = drawing.name_of(result.size, result.size)
    for point in points:
        place = drawing.place_of(point.magnitude, results) + offset
        mean = metric.scale * point.mean
        shape, width = ("_", 8.0) if point.magnitude == NONE else ("o", 2.5)
        shown = format_interval(point.mean, point.half, metric)
        tooltip = f"{size_name}, magnitude {format_value(point.magnitude)}: {shown}"
        seeds = [metric.scale * value for value in point.seeds]
        drawing.draw_point(axes, place, mean, position, tooltip, shape, seeds, markersize=width)
        if result.best and point.magnitude == result.best.magnitude:
            axes.plot([place], [mean], "o", color=colour, mfc="none", markersize=8)


def _offset(results: Sequence[SizeResult], result: SizeResult, position: int) -> float:
    """Return how far aside points are drawn: with one magnitude, no line separates the sizes."""
    if sum(cell.magnitude != NONE for cell in result.cells) > 1:
        return 0.0
    return 0.02 * (position - (min(len(results), len(drawing.COLOURS)) - 1) / 2)
