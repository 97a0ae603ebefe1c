"""The figure of the smooth optimum against the number of non-zero parameters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from analysis import drawing
from analysis.best import SizeResult
from analysis.render import format_count, format_optimum, format_value
from harness.statistics import Optimum


def optimum_against_params(results: Sequence[SizeResult]) -> Figure | None:
    """Draw the smooth optimum and its interval, with what validation chose.

    An open circle is the chosen magnitude, short dashes are those that tie with it; `none` is a
    level of its own. An arrow means that the end of the grid cuts the interval off. None where no
    size has an optimum.
    """
    names = drawing.names_of(results)
    shown = [
        (position, result, name)
        for position, (result, name) in enumerate(zip(results, names, strict=True))
        if result.optimum and result.params
    ]
    if not shown:
        return None
    figure, (axes,) = drawing.panels()
    params = [float(result.params or 0) for _, result, _ in shown]
    places = _side_by_side(params)
    for (position, result, name), x in zip(shown, places, strict=True):
        assert result.optimum is not None
        _draw_optimum(axes, x, result.optimum, position, name)
        for magnitude in result.ties:
            is_chosen = result.best is not None and magnitude == result.best.magnitude
            shape, width, word = ("o", 9, "chosen") if is_chosen else ("_", 8, "ties")
            tooltip = f"{name}: magnitude {format_value(magnitude)} {word} on validation"
            drawing.draw_point(axes, x, drawing.place_of(magnitude, results), position, tooltip,
                               shape, mfc="none", markersize=width)  # fmt: skip
    axes.set_xscale("log")
    axes.minorticks_off()
    factor = max(1.25, (max(params) / min(params)) ** 0.1)
    ticks = drawing.spaced(sorted(set(params)), lambda last: last * factor)
    axes.set_xticks(ticks, [format_count(tick) for tick in ticks])
    axes.set_xlim(min(places) / 1.6, max(places) * 1.6)
    drawing.finish_magnitudes(axes.yaxis, results)
    ends = axes.get_yticks()
    margin = 0.07 * (ends[-1] - ends[0])
    axes.set_ylim(ends[0] - margin, ends[-1] + margin)
    return drawing.finish(figure, [axes], "non-zero parameters", "best magnitude (validation)")


def _draw_optimum(axes: Any, x: float, optimum: Optimum, position: int, name: str) -> None:
    colour, _ = drawing.colour_and_dash(position)
    axes.plot([x, x], [optimum.low, optimum.high], color=colour, linewidth=2)
    arrows = zip(optimum.censored, optimum.ends, (-0.05, 0.05), "v^", strict=True)
    for is_censored, end, length, head in arrows:
        if is_censored:
            axes.plot([x, x], [end, end + length], color=colour, linewidth=2)
            axes.plot([x], [end + length], head, color=colour, markersize=6)
    drawing.draw_point(axes, x, optimum.at, position, f"{name}: optimum {format_optimum(optimum)}",
                       drawing.marker(position), mec="white", mew=0.7, markersize=5.5,
                       label=drawing.fit_text(name), zorder=3)  # fmt: skip


def _side_by_side(sizes: Sequence[float]) -> list[float]:
    """Return positions on a log axis; equal sizes are spread around their common value."""
    step = max(max(sizes) / min(sizes), 2.0) ** 0.04
    places, seen = [], Counter[float]()
    for size in sizes:
        places.append(size * step ** (seen[size] - (sizes.count(size) - 1) / 2))
        seen[size] += 1
    return places
