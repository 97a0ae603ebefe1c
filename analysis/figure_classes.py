"""What the best magnitude changes for each class: a line for each size, the worst class first."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.figure import Figure

from analysis import drawing
from analysis.class_accuracy import ClassResult
from analysis.columns import TOP1


def change_per_class(results: Sequence[ClassResult]) -> Figure | None:
    """Return the figure; None if no size has classes to compare.

    The classes of each size are in order of their own change, as shares of all classes, so that
    sizes can be compared: where a line crosses 0 is the share of the classes that lose.
    """
    lines: dict[str, list[ClassResult]] = {}
    for result in results:
        if not math.isnan(result.change):
            name = drawing.name_of(result.size, result.size)
            lines.setdefault(name, []).append(result)
    if not lines or len(lines) > drawing.MOST_NAMES:
        return None
    figure, (axes,) = drawing.panels()
    axes.axhline(0.0, color=drawing.GREY, linewidth=0.6, zorder=0)
    for at, (name, classes) in enumerate(lines.items()):
        look = drawing.distinct(at)
        shares = [(number + 0.5) / len(classes) for number in range(len(classes))]
        for x, result in zip(shares, classes, strict=True):
            tooltip = f"{name}, class {result.number}: {TOP1.scale * result.change:+.1f} points"
            half = TOP1.scale * result.half
            drawing.draw_point(axes, x, TOP1.scale * result.change, look, tooltip, half)
        changes = [TOP1.scale * result.change for result in classes]
        axes.plot(shares, changes, look.dash, color=look.colour, linewidth=1.0,
                  label=drawing.fit_text(name))  # fmt: skip
    axes.set_xlim(0, 1)
    marks = {"interval"} if any(not math.isnan(r.half) for r in results) else set()
    return drawing.finish(
        figure, [axes], "share of the classes", "change of the accuracy\nof a class, points", marks
    )
