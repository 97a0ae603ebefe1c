"""What the figures share: paper size, colours, the magnitude axis, tooltips, files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from analysis.best import NONE, Best, Metric
from analysis.render import number

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito (2008): told apart with any common colour blindness; dashes go on where they end
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", "--", ":", "-.")
MARKERS = ("o", "s", "D", "P")
WIDTH_INCHES = 3.5  # a column of a two-column paper
POINTS = 8  # of text
LINE, LINES = 44, 3  # characters of a name on a line, and its lines: two thirds of the width
TIP = "tip:"  # a group id that becomes a tooltip in the report


def canvas(height: float = 2.5) -> tuple[Figure, Any]:
    """A figure of one paper column and its axes; no pyplot, so no state and no display."""
    figure, (axes,) = panels(1, height)
    return figure, axes


def panels(count: int, height: float = 2.5) -> tuple[Figure, list[Any]]:
    """A figure with `count` axes, two in a row; `height` is that of a row in inches."""
    from matplotlib.figure import Figure

    across, down = min(count, 2), math.ceil(count / 2)
    figure = Figure(figsize=(WIDTH_INCHES, height * down), layout="constrained")
    grid = figure.subplots(down, across, squeeze=False, sharex=True, sharey=True)
    for axes in grid.flat:
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=POINTS - 1)
        axes.xaxis.label.set_size(POINTS)
        axes.yaxis.label.set_size(POINTS)
        axes.title.set_size(POINTS)
    for axes in grid.flat[count:]:
        axes.remove()
    for axes in grid.flat[max(0, count - across) : count]:  # the lowest of each column
        axes.tick_params(labelbottom=True)
    return figure, list(grid.flat[:count])


def colour_and_dash(position: int) -> tuple[str, str]:
    """Of the line at `position`: 28 that differ."""
    return COLOURS[position % len(COLOURS)], DASHES[position // len(COLOURS) % len(DASHES)]


def label(split: str, metric: Metric, difference: bool = False) -> str:
    """`test top-1 (%)`; differences of percentages are points."""
    if metric.name != "top1":
        return f"{split} {metric.name} (nats)"
    return f"{split} top-1 ({'points' if difference else '%'})"


def place_of(magnitude: float | str, found: Sequence[Best]) -> float:
    """Where a magnitude stands on the axis; `none` is left of 0, detached from the line."""
    if magnitude != NONE:
        return float(magnitude)
    step = min((m for m in _magnitudes(found) if m), default=0.2)
    return -max(0.2, step / 2)  # the word needs room


def _magnitudes(found: Sequence[Best]) -> list[float]:
    numbers = {c.magnitude for line in found for c in line.cells if c.magnitude != NONE}
    return sorted(float(m) for m in numbers)


def finish_magnitudes(axis: Any, found: Sequence[Best], with_none: bool = True) -> None:
    """Ticks of a magnitude axis; of those that are too close to each other one is named."""
    panels = sum(axes.axison for axes in axis.axes.figure.axes)
    every: list[float | str] = [*_magnitudes(found)]
    if with_none and any(cell.magnitude == NONE for line in found for cell in line.cells):
        every.insert(0, NONE)
    places = [place_of(magnitude, found) for magnitude in every]
    least = (places[-1] - places[0]) / (6 if panels > 1 else 11) if places else 0.0
    names, last = [], -math.inf
    for at, magnitude in zip(places, every, strict=True):
        named = at - last >= least
        names.append(number(magnitude) if named else "")
        last = at if named else last
    axis.set_ticks(places, names)


def dots(axes: Any, at: float, values: Sequence[float], metric: Metric, position: int) -> None:
    """The seeds of a cell, each a dot."""
    colour, _ = colour_and_dash(position)
    scaled = [metric.scale * value for value in values]
    axes.plot([at] * len(values), scaled, ".", color=colour, markersize=2, alpha=0.7)


def add_legend(figure: Figure, panels: Sequence[Any]) -> None:
    """A legend below, where there is more than one line; the figure grows by its rows."""
    lines: dict[str, Any] = {}
    for axes in panels:
        for handle, text in zip(*axes.get_legend_handles_labels(), strict=True):
            lines.setdefault(text, handle)
    if len(lines) > 1:
        longest = max(len(row) for text in lines for row in text.splitlines())
        columns = 3 if longest < 14 else 2 if longest < 24 else 1
        rows = [list(lines)[at : at + columns] for at in range(0, len(lines), columns)]
        high = sum(max(text.count("\n") + 1 for text in row) for row in rows)
        figure.set_figheight(figure.get_figheight() + 0.02 + 0.13 * high)
        figure.legend(lines.values(), lines.keys(), loc="outside lower center", ncols=columns,
                      fontsize=POINTS - 2, frameon=False)  # fmt: skip


def plain(text: str, line: int = LINE) -> str:
    """Text in which matplotlib finds no formula, in a few lines of at most `line` characters."""
    text = " ".join(_broken(word, line) for word in text.split())
    return "\n".join(wrap(text, line, max_lines=LINES, placeholder=" ...")).replace("$", r"\$")


def _broken(word: str, line: int) -> str:
    """A word longer than a line as several."""
    parts = []
    while len(word) > line:
        at = max(word.rfind(mark, 0, line) for mark in "_(,/") + 1 or line
        parts.append(word[:at])
        word = word[at:]
    return " ".join([*parts, word])


def names_of(found: Sequence[Best], columns: Sequence[str] | None = None) -> list[str]:
    """`width 0.5, sparsity 0.9` for each line, without the columns that only follow another."""
    names: list[str] = []
    for name in found[0].size if found and columns is None else columns or ():
        pairs = [{(line.size[n], line.size[name]) for line in found} for n in names]
        if not any(len(dict(pair)) == len(pair) for pair in pairs):
            names.append(name)
    return [name_of(line, names) for line in found]


def name_of(line: Best, columns: Sequence[str]) -> str:
    """`width 0.5, sparsity 0.9`."""
    return ", ".join(f"{key} {number(line.size[key])}" for key in columns) or "all"


def tip(artist: Any, text: str) -> None:
    """Give an artist the text that the report shows when the pointer is on it."""
    artist.set_gid(TIP + text)


def mark_interim(figure: Figure, done: int, trials: int) -> None:
    """Say on the figure itself that the sweep is not finished."""
    if done < trials:
        figure.suptitle(f"interim: {done:,} of {trials:,} trials done", x=0.99, ha="right",
                        fontsize=POINTS - 2, color="0.4")  # fmt: skip


def render(figure: Figure, shape: str) -> bytes:
    """The figure as `png`, `pdf`, or `svg` for pages: the same bytes for the same rows."""
    import io
    import warnings

    from matplotlib import rc_context

    buffer = io.BytesIO()
    metadata = {"png": {"Software": None}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}
    # journals want TrueType (42) in a PDF; what the font cannot show is a box, and no warning
    with rc_context({"svg.hashsalt": "figure", "pdf.fonttype": 42}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")
        figure.savefig(buffer, format=shape, dpi=200, metadata=metadata[shape],
                       transparent=shape == "svg")  # fmt: skip
    return buffer.getvalue()


def save(figure: Figure, path: Path) -> list[Path]:
    """`path` as .png and .pdf."""
    from harness.files import atomic_write, make_folder

    make_folder(path.parent)
    written = [path.with_name(f"{path.name}.{shape}") for shape in ("png", "pdf")]
    for file in written:
        atomic_write(file, render(figure, file.suffix[1:]))
    return written
