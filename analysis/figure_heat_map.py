"""The heat map: a row for each size, a column for each magnitude.

A cell shows the test result of its magnitude minus that of the magnitude chosen on validation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from analysis import drawing
from analysis.best import SizeResult, magnitudes_of
from analysis.columns import TOP1, Metric
from analysis.render import format_value

MOST_HORIZONTAL_COLUMNS = 7  # with more columns, the numbers are turned by 90 degrees to fit
NAME_LENGTH = 24  # characters on a line of a size's name, left of the map


def heat_map(results: Sequence[SizeResult], metric: Metric = TOP1) -> Figure:
    """Return the figure; magnitudes that tie with the chosen one are outlined.

    The chosen magnitude has the widest outline. A cell without a result shows a dash.
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
    axes.imshow(change, cmap="PuOr", vmin=-largest or -1, vmax=largest or 1, aspect="auto")
    rotation = 90 if len(magnitudes) > MOST_HORIZONTAL_COLUMNS else 0
    for row, result in enumerate(results):
        for cell in result.cells:
            column = magnitudes.index(cell.magnitude)
            value = change[row, column]
            is_dark = abs(value) > 0.6 * largest  # False for NaN
            axes.text(column, row, "-" if math.isnan(value) else f"{value:+.{metric.digits}f}",
                      ha="center", va="center", fontsize=drawing.POINTS - 2,
                      color="white" if is_dark else "black", rotation=rotation)  # fmt: skip
            if cell.magnitude in result.ties:
                width = 1.6 if cell is result.best else 0.7
                corner = (column - 0.46, row - 0.46)
                axes.add_patch(Rectangle(corner, 0.92, 0.92, fill=False, linewidth=width))
    axes.set_xticks(
        range(len(magnitudes)), [format_value(m) for m in magnitudes], rotation=rotation
    )
    axes.set_yticks(range(len(results)), names)
    axes.set_xlabel("magnitude (boxed: ties)")
    title = f"change from the best, {drawing.label('test', metric, True)}"
    axes.set_title(drawing.fit_text(title, 30), fontsize=drawing.POINTS)
    return figure
