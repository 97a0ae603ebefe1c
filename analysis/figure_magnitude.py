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
from analysis.claim_base import BUDGETS
from analysis.columns import NONE, TOP1, Metric
from analysis.render import format_interval, format_value
from harness.statistics import difference, half_width

MOST_LINES = 28  # sizes of figures with a line per size
STEP_ASIDE = 0.016  # in units of magnitude


class Point(NamedTuple):
    """One cell as it is drawn: the mean, its interval and the seeds."""

    magnitude: float | str
    mean: float
    half: float  # half-width of the 95 % interval
    seeds: list[float]


def accuracy_against_magnitude(results: Sequence[SizeResult], metric: Metric = TOP1) -> Figure:
    """Draw the mean test result against magnitude, a line per size.

    `none` is a point of its own, left of 0. Bands, and bars at single points, are 95 % t intervals
    with the pooled spread, dots are seeds, the open circle is the magnitude that validation chose.
    Many sizes get a panel for each value of one of their columns.
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


def too_many_lines(results: Sequence[SizeResult]) -> bool:
    """Return whether one legend and its panels cannot show a line for each size."""
    if len(results) > MOST_LINES:
        return True
    return panel_column(results) is None and not drawing.are_legible(results)


def _draw(
    results: Sequence[SizeResult], lines: Sequence[list[Point] | None], y_label: str, metric: Metric
) -> Figure:
    """Draw the line of each size, where it has one.

    Where one panel would hold too many lines, each value of one size column gets a panel; then a
    look belongs to the rest of the size.
    """
    column = panel_column(results)
    values = list(dict.fromkeys(r.size[column] for r in results)) if column else [None]
    titles = _columns_of_title(results, column)
    columns = [name for name in results[0].size if name not in titles]
    names, looks = drawing.names_of(results, columns), drawing.looks_of(results, columns)
    figure, each = drawing.panels(len(values), 2.5 if len(values) == 1 else 1.7)
    for axes, value in zip(each, values, strict=True):
        for result, points, name in zip(results, lines, names, strict=True):
            if points and (column is None or result.size[column] == value):
                aside = list(looks).index(name) - (len(looks) - 1) / 2
                aside *= min(1, drawing.MOST_NAMES / len(looks))
                _draw_line(axes, results, result, name, looks[name], points, metric, aside)
                title = drawing.name_of(result.size, titles) if titles else ""
                title = drawing.fit_text(title, drawing.PANEL_NAME_LENGTH)
                axes.set_title(title, fontsize=drawing.POINTS)
    return drawing.finish(figure, each, "augmentation magnitude", y_label, _marks(results, lines))


def _marks(results: Sequence[SizeResult], lines: Sequence[list[Point] | None]) -> set[str]:
    """Return the kinds of marks that are drawn, for the legend."""
    drawn = [points for points in lines if points]
    shown = zip(results, lines, strict=True)
    marks = {
        "seed": any(len(points) <= drawing.MOST_POINTS for points in drawn),
        "interval": any(not math.isnan(point.half) for points in drawn for point in points),
        "chosen": any(_is_chosen(r, point) for r, points in shown for point in points or ()),
    }
    return {name for name, is_drawn in marks.items() if is_drawn}


def panel_column(results: Sequence[SizeResult]) -> str | None:
    """Return the last size column that divides the sizes into panels of few enough lines.

    A length of training comes after the axes. None where one panel can hold all lines.
    """
    if len(results) <= drawing.MOST_NAMES:
        return None
    last_first = [*results[0].size][::-1]
    for column in sorted(last_first, key=lambda name: name in BUDGETS):
        counts = Counter(result.size[column] for result in results)
        rest = [n for n in results[0].size if n not in _columns_of_title(results, column)]
        names = len(set(drawing.names_of(results, rest)))
        if 1 < len(counts) <= drawing.MOST_PANELS and 1 < names <= drawing.MOST_NAMES:
            return column
    return None


def _columns_of_title(results: Sequence[SizeResult], column: str | None) -> list[str]:
    """Return the columns in the title of a panel: its own, and a length that follows from it."""
    if column is None:
        return []
    lengths = [n for n in BUDGETS if n in results[0].size and n != column]
    return [column, *(n for n in lengths if drawing.is_function(results, column, n))]


def _is_chosen(result: SizeResult, point: Point) -> bool:
    return result.best is not None and point.magnitude == result.best.magnitude


def _draw_line(
    axes: Any,
    results: Sequence[SizeResult],
    result: SizeResult,
    name: str,
    look: drawing.Look,
    points: Sequence[Point],
    metric: Metric,
    aside: float,
) -> None:
    """Draw one size's line with its intervals and seeds; `none` is detached, the choice circled.

    Points that no line joins are drawn `aside`, a number of steps, of those of other sizes.
    """
    joined = [point for point in points if point.magnitude != NONE]
    offset = STEP_ASIDE * aside if len(joined) == 1 else 0.0
    x = [float(point.magnitude) + offset for point in joined]
    y = [metric.scale * point.mean for point in joined]
    shape = {"label": drawing.fit_text(name), "linewidth": 1.2}
    if len(x) == 1:  # a line of one point is not seen in a legend
        shape |= {"marker": look.marker, "markersize": 3}
    axes.plot(x, y, look.dash, color=look.colour, **shape)
    half = [metric.scale * point.half for point in joined]
    has_band = len(x) > 1 and not any(map(math.isnan, half))
    if has_band:
        low = [value - width for value, width in zip(y, half, strict=True)]
        high = [value + width for value, width in zip(y, half, strict=True)]
        axes.fill_between(
            x, low, high, color=look.colour, alpha=0.6 / max(4, len(results)), linewidth=0
        )
    size_name = drawing.name_of(result.size, result.size)
    is_dense = len(points) > drawing.MOST_POINTS
    for point in points:
        place = drawing.place_of(point.magnitude, results)
        place += STEP_ASIDE * aside if point.magnitude == NONE else offset
        mean = metric.scale * point.mean
        shown = format_interval(point.mean, point.half, metric)
        drawing.draw_point(
            axes, place, mean, look,
            f"{size_name}, magnitude {format_value(point.magnitude)}: {shown}",
            math.nan if has_band and point.magnitude != NONE else metric.scale * point.half,
            [] if is_dense else [metric.scale * value for value in point.seeds],
            markersize=0.6 if is_dense and point.magnitude != NONE else 3,
        )  # fmt: skip
        if _is_chosen(result, point):
            edge = "black" if is_dense else look.colour
            axes.plot([place], [mean], "o", color=edge, mfc="none", markersize=8, zorder=3)
