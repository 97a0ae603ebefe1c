"""The heat map: a row for each size, a column for each magnitude.

A cell shows the test result of its magnitude minus that of the magnitude chosen on validation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from analysis import drawing
from analysis.best import SizeResult, magnitudes_of
from analysis.cells import magnitude_key
from analysis.columns import NONE, TOP1, Metric
from analysis.render import format_value

MOST_COLUMNS = 20  # with numbers in them
MOST_HORIZONTAL_COLUMNS = 7  # with more columns, the numbers are turned by 90 degrees to fit
NAME_LENGTH = 24  # characters on a line of a size's name, left of the map


def heat_map(results: Sequence[SizeResult], metric: Metric = TOP1) -> Figure:
    """Return the figure; magnitudes that tie with the chosen one on validation are framed.

    The chosen magnitude has the widest frame. A cell without a result shows a dash,
    or that it was ruled out. Too many
    magnitudes for numbers get a scale of colours instead, and dots for frames.
    """
    magnitudes = magnitudes_of(results)
    change = np.full((len(results), len(magnitudes)), math.nan)
    for row, result in enumerate(results):
        for cell in result.cells:
            if cell.val and result.best:
                column = magnitudes.index(cell.magnitude)
                change[row, column] = metric.scale * (cell.mean_test - result.best.mean_test)
    names = [drawing.fit_text(name, NAME_LENGTH) for name in drawing.names_of(results)]
    name_lines = max(name.count("\n") + 1 for name in names)
    height = 0.9 + max(0.28, 0.15 * name_lines) * len(results)
    figure, (axes,) = drawing.panels(height=height)
    largest = float(np.nanmax(np.abs(change))) if not np.isnan(change).all() else 1.0
    image = axes.imshow(change, cmap="PuOr", vmin=-largest or -1, vmax=largest or 1, aspect="auto")
    words = drawing.label("test", metric, True)
    if len(magnitudes) <= MOST_COLUMNS:
        rotation = 90 if len(magnitudes) > MOST_HORIZONTAL_COLUMNS else 0
        _write_numbers(axes, results, change, rotation, 0.6 * largest, metric)
        ticks: Any = range(len(magnitudes))
        texts = [format_value(magnitude) for magnitude in magnitudes]
        chosen, tied = "wide frame", "narrow"
    else:
        rotation = 0
        round_ones = drawing.round_magnitudes([m for m in magnitudes if m != NONE])
        texts = [format_value(magnitude) for magnitude in round_ones]
        keys = [magnitude_key(magnitude) for magnitude in magnitudes]
        ticks = np.interp([*map(magnitude_key, round_ones)], keys, range(len(keys)))
        scale = figure.colorbar(image, ax=axes)
        scale.ax.tick_params(labelsize=drawing.POINTS - 1)
        chosen, tied = "large dot", "small"
    for row, result in enumerate(results):
        for magnitude in result.ties:
            is_chosen = result.best is not None and magnitude == result.best.magnitude
            _mark_tie(axes, magnitudes.index(magnitude), row, "frame" in chosen, is_chosen)
    axes.set_xticks(ticks, texts, rotation=rotation)
    axes.set_yticks(range(len(results)), names)
    axes.set_xlabel(f"magnitude ({chosen}: chosen on\nvalidation, {tied}: ties with it)")
    title = f"change from the magnitude chosen on validation, {words}"
    axes.set_title(drawing.fit_text(title, 34), fontsize=drawing.POINTS)
    return figure


def _write_numbers(
    axes: Any,
    results: Sequence[SizeResult],
    change: Any,
    rotation: int,
    dark: float,
    metric: Metric,
) -> None:
    """Write the number of each cell, white where its change is larger than `dark`."""
    magnitudes = magnitudes_of(results)
    for row, result in enumerate(results):
        for cell in result.cells:
            column = magnitudes.index(cell.magnitude)
            value = change[row, column]
            text = "-" if math.isnan(value) else f"{value:+.{metric.digits}f}"
            text = "ruled\nout" if cell.is_ruled_out else text
            colour = "white" if abs(value) > dark else "black"  # black for NaN
            axes.text(column, row, text, ha="center", va="center", color=colour,
                      fontsize=drawing.POINTS - (4 if cell.is_ruled_out else 2),
                      linespacing=0.9, rotation=rotation)  # fmt: skip


def _mark_tie(axes: Any, column: int, row: int, has_frame: bool, is_chosen: bool) -> None:
    if not has_frame:
        axes.plot([column], [row], "o", color="black", markersize=4 if is_chosen else 0.8)
        return
    corner, width = (column - 0.46, row - 0.46), 1.6 if is_chosen else 0.7
    axes.add_patch(Rectangle(corner, 0.92, 0.92, fill=False, linewidth=width))
