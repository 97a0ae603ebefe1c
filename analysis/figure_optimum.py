"""The figures of the smooth optimum: against non-zero parameters and against training length."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from analysis import drawing
from analysis.best import SizeResult
from analysis.cells import LENGTHS
from analysis.columns import NONE
from analysis.render import format_count, format_optimum, format_value
from harness.statistics import Optimum


class Place(NamedTuple):
    """A size with an optimum, and where it is drawn."""

    result: SizeResult
    name: str
    x: float


def optimum_against_params(results: Sequence[SizeResult]) -> Figure | None:
    """Draw the smooth optimum and its interval, with what validation chose.

    An open circle is the chosen magnitude, short dashes are those that tie with it; `none` is a
    level of its own. An arrow means that the end of the grid cuts the interval off. Where `none` is
    chosen, the optimum is not drawn: the curve does not include `none`. Returns None where no size
    has an optimum.
    """
    names = drawing.names_of(results)
    shown = [
        Place(result, name, result.params)
        for result, name in zip(results, names, strict=True)
        if result.optimum and result.params
    ]
    if not shown or not drawing.are_legible(results):
        return None
    return _draw(results, shown, drawing.looks_of(results), "non-zero parameters")


def optimum_against_epochs(results: Sequence[SizeResult]) -> Figure | None:
    """Draw the same against the length of training; a line connects the optima of one size.

    The length is that of the path of stages. Returns None where no size has an optimum at two
    lengths.
    """
    columns = [name for name in results[0].size if name not in LENGTHS] if results else []
    names = drawing.names_of(results, columns) if results else []
    shown = [
        Place(result, name, result.size["epochs"])
        for result, name in zip(results, names, strict=True)
        if result.optimum and isinstance(result.size.get("epochs"), int | float)
    ]
    lengths = Counter(place.name for place in shown)
    if max(lengths.values(), default=0) < 2 or not drawing.are_legible(results, columns):
        return None
    return _draw(results, shown, drawing.looks_of(results, columns), "epochs", has_lines=True)


def _draw(
    results: Sequence[SizeResult],
    shown: Sequence[Place],
    looks: Mapping[str, drawing.Look],
    label: str,
    has_lines: bool = False,
) -> Figure:
    figure, (axes,) = drawing.panels()
    sizes = [place.x for place in shown]
    places, marks = _side_by_side(sizes), set()
    lines: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for (result, name, _), x in zip(shown, places, strict=True):
        look, best = looks[name], result.best
        assert result.optimum is not None
        assert best is not None
        if best.magnitude != NONE:
            _draw_optimum(axes, x, result.optimum, look, name)
            marks |= {"optimum", *(["cut"] if any(result.optimum.censored) else [])}
            lines[name].append((x, result.optimum.at))
        is_dense = len(result.ties) > drawing.MOST_POINTS
        for magnitude in result.ties:
            is_chosen = magnitude == best.magnitude
            shape, width, word = ("o", 9, "chosen") if is_chosen else ("_", 8, "ties")
            marks.add("chosen" if is_chosen else "tie")
            tooltip = f"{name}: magnitude {format_value(magnitude)} {word} on validation"
            place = drawing.place_of(magnitude, results)
            drawing.draw_point(axes, x, place, look, tooltip, marker=shape, mfc="none",
                               markersize=width, mew=0.4 if is_dense else 1.0)  # fmt: skip
        axes.plot([], [], look.marker, color=look.colour, ms=4, label=drawing.fit_text(name))
    for name, points in lines.items() if has_lines else ():
        x_of, y_of = zip(*sorted(points), strict=True)
        axes.plot(x_of, y_of, looks[name].dash, color=looks[name].colour, linewidth=0.8, zorder=1)
    axes.set_xscale("log")
    axes.minorticks_off()
    factor = max(1.25, (max(sizes) / min(sizes)) ** 0.1)
    ticks = drawing.spaced(sorted(set(sizes)), lambda last: last * factor)
    axes.set_xticks(ticks, [format_count(tick) for tick in ticks])
    axes.set_xlim(min(places) / 1.6, max(places) * 1.6)
    drawing.finish_magnitudes(axes.yaxis, results)
    ends = axes.get_yticks()
    margin = 0.07 * (ends[-1] - ends[0])
    axes.set_ylim(ends[0] - margin, ends[-1] + margin)
    return drawing.finish(figure, [axes], label, "best magnitude on validation", marks)


def _draw_optimum(axes: Any, x: float, optimum: Optimum, look: drawing.Look, name: str) -> None:
    colour = look.colour
    axes.plot([x, x], [optimum.low, optimum.high], color=colour, linewidth=2)
    arrows = zip(optimum.censored, optimum.ends, (-0.05, 0.05), "v^", strict=True)
    for is_censored, end, length, head in arrows:
        if is_censored:
            axes.plot([x, x], [end, end + length], color=colour, linewidth=2)
            axes.plot([x], [end + length], head, color=colour, markersize=6)
    drawing.draw_point(axes, x, optimum.at, look, f"{name}: optimum {format_optimum(optimum)}",
                       mec="white", mew=0.7, markersize=5.5, zorder=3)  # fmt: skip


def _side_by_side(sizes: Sequence[float]) -> list[float]:
    """Return positions on a log axis; equal sizes are spread around their common value."""
    step = max(max(sizes) / min(sizes), 2.0) ** 0.04
    places, seen = [], Counter[float]()
    for size in sizes:
        places.append(size * step ** (seen[size] - (sizes.count(size) - 1) / 2))
        seen[size] += 1
    return places
