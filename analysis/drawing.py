"""What the figures share: paper size, colours, the magnitude axis, tooltips, files."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from textwrap import wrap
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure

from analysis.best import SizeResult, magnitudes_of
from analysis.columns import NONE, Metric
from analysis.render import format_value
from harness.files import atomic_write, make_folder

# Okabe and Ito (2008), distinct with any common colour blindness; beyond 7 lines dashes differ
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", "--", ":", "-.")
MARKERS = ("o", "s", "D", "P")
WIDTH_INCHES = 3.5  # a column of a two-column paper
POINTS = 8  # of text
STYLE: Any = {
    "axes.spines.top": False, "axes.spines.right": False, "axes.labelsize": POINTS,
    "xtick.labelsize": POINTS - 1, "ytick.labelsize": POINTS - 1,
}  # fmt: skip
MOST_PANELS = 12
NAME_LENGTH, NAME_LINES = 44, 3  # characters of a name on a line, and its lines, in a legend
PANEL_NAME_LENGTH = 22  # above one of two panels
TIP = "tip:"  # prefix of a group id that becomes a tooltip in the report


def panels(count: int = 1, height: float = 2.5) -> tuple[Figure, list[Any]]:
    """Return a figure with `count` axes, two in a row; `height` is that of a row in inches.

    Without pyplot, which keeps state.
    """
    across, down = min(count, 2), math.ceil(count / 2)
    with rc_context(STYLE):
        figure = Figure(figsize=(WIDTH_INCHES, height * down), layout="constrained")
        grid = figure.subplots(down, across, squeeze=False, sharex=True, sharey=True)
    for axes in grid.flat[count:]:
        axes.remove()
    for axes in grid.flat[max(0, count - across) : count]:  # the lowest of each column
        axes.tick_params(labelbottom=True)
    return figure, list(grid.flat[:count])


def colour_and_dash(position: int) -> tuple[str, str]:
    """Return the look of the line at `position`; 28 of them differ."""
    return COLOURS[position % len(COLOURS)], DASHES[position // len(COLOURS) % len(DASHES)]


def marker(position: int) -> str:
    """Return the marker at `position`, for figures without lines."""
    return MARKERS[position // len(COLOURS) % len(MARKERS)]


def label(split: str, metric: Metric, difference: bool = False) -> str:
    """Return an axis label: `test top-1 (%)`; differences of percentages are points."""
    if metric.name != "top1":
        return f"{split} {metric.name} (nats)"
    return f"{split} top-1 ({'points' if difference else '%'})"


def place_of(magnitude: float | str, results: Sequence[SizeResult]) -> float:
    """Return a magnitude's place on the axis; `none` is left of 0, detached from the line."""
    if magnitude != NONE:
        return float(magnitude)
    step = min((float(m) for m in magnitudes_of(results) if m not in (NONE, 0)), default=0.2)
    return -max(0.2, step / 2)  # at least as wide as the word


def finish_magnitudes(axis: Any, results: Sequence[SizeResult], with_none: bool = True) -> None:
    """Set the ticks of a magnitude axis; of ticks that are too close only the first is labelled."""
    panel_count = sum(axes.axison for axes in axis.axes.figure.axes)
    magnitudes = [m for m in magnitudes_of(results) if with_none or m != NONE]
    places = [place_of(magnitude, results) for magnitude in magnitudes]
    least = (places[-1] - places[0]) / (6 if panel_count > 1 else 11) if places else 0.0
    shown = spaced(places, lambda last: last + least)
    texts = [format_value(m) if p in shown else "" for p, m in zip(places, magnitudes, strict=True)]
    axis.set_ticks(places, texts)


def spaced(ticks: Sequence[float], least_after: Callable[[float], float]) -> list[float]:
    """Return the rising ticks that are far enough from the one before for their labels."""
    shown: list[float] = []
    for tick in ticks:
        if not shown or tick >= least_after(shown[-1]):
            shown.append(tick)
    return shown


def draw_point(
    axes: Any,
    x: float,
    y: float,
    position: int,
    tooltip: str,
    shape: str = "o",
    seeds: Sequence[float] = (),
    **style: Any,
) -> None:
    """Draw a mark with its tooltip, which the report shows, and the seeds of its cell as dots."""
    colour, _ = colour_and_dash(position)
    (point,) = axes.plot([x], [y], shape, **{"color": colour, "markersize": 4, **style})
    point.set_gid(TIP + tooltip)
    if seeds:
        axes.plot([x] * len(seeds), seeds, ".", color=colour, markersize=2, alpha=0.7)


def finish(figure: Figure, panels: Sequence[Any], x_label: str, y_label: str) -> Figure:
    """Return the figure with its labels and legend."""
    for axes in panels[-2:]:
        axes.set_xlabel(x_label)
    figure.supylabel(y_label, fontsize=POINTS)
    add_legend(figure, panels)
    return figure


def add_legend(figure: Figure, panels: Sequence[Any]) -> None:
    """Add a legend below if there is more than one line; the figure grows by its rows."""
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


def fit_text(text: str, length: int = NAME_LENGTH) -> str:
    """Return the text without matplotlib formulas, in up to 3 lines of at most `length`."""
    text = " ".join(_break_word(word, length) for word in text.split())
    lines = wrap(text, length, max_lines=NAME_LINES, placeholder=" ...")
    return "\n".join(lines).replace("$", r"\$")


def _break_word(word: str, length: int) -> str:
    """Return a word that is longer than a line as several words."""
    parts = []
    while len(word) > length:
        at = max(word.rfind(mark, 0, length) for mark in "_(,/") + 1 or length
        parts.append(word[:at])
        word = word[at:]
    return " ".join([*parts, word])


def names_of(results: Sequence[SizeResult], columns: Sequence[str] | None = None) -> list[str]:
    """Return a name for each size, of `columns` (else all) that no other one determines."""
    kept: list[str] = []
    for name in results[0].size if columns is None else columns:
        pairs = [{(result.size[other], result.size[name]) for result in results} for other in kept]
        if not any(len(dict(pair)) == len(pair) for pair in pairs):
            kept.append(name)
    return [name_of(result.size, kept) for result in results]


def name_of(size: Mapping[str, Any], columns: Iterable[str]) -> str:
    """Return the name of a size: `width 0.5, sparsity 0.9`."""
    return ", ".join(f"{column} {format_value(size[column])}" for column in columns) or "all"


def render(figure: Figure, form: str) -> bytes:
    """Return the figure as `png`, `pdf`, or `svg` for pages: the same bytes for the same rows."""
    buffer = io.BytesIO()
    metadata = {"png": {"Software": None}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}
    # journals want TrueType fonts (42) in a PDF; letters that the font lacks become boxes
    with rc_context({"svg.hashsalt": "figure", "pdf.fonttype": 42}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")
        figure.savefig(buffer, format=form, dpi=200, metadata=metadata[form],
                       transparent=form == "svg")  # fmt: skip
    return buffer.getvalue()


def save(figure: Figure, path: Path) -> list[Path]:
    """Write the figure as `path`.png and `path`.pdf; return the two paths."""
    make_folder(path.parent)
    files = [path.with_name(f"{path.name}.{form}") for form in ("png", "pdf")]
    for file in files:
        atomic_write(file, render(figure, file.suffix[1:]))
    return files
