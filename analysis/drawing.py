"""What the figures share: paper size, colours, the magnitude axis, legends, tooltips, files."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap
from typing import Any

import numpy as np
from matplotlib import colormaps, rc_context
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from analysis.best import SizeResult, magnitudes_of
from analysis.claim_base import BUDGETS
from analysis.columns import NONE, Metric, is_missing
from analysis.render import format_value
from harness.files import atomic_write, make_folder

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""For unordered names, distinct with any common colour blindness (Okabe and Ito, 2008)."""
SEQUENCE, LIGHTEST = "viridis", 0.78  # for ordered sizes: a larger one is darker
DASHES = ("-", "--", ":", "-.")
MARKERS = ("o", "s", "D", "P")
WIDTH_INCHES = 3.5  # a column of a two-column paper
POINTS = 8  # of text
STYLE: Any = {
    "axes.spines.top": False, "axes.spines.right": False, "axes.labelsize": POINTS,
    "xtick.labelsize": POINTS - 1, "ytick.labelsize": POINTS - 1,
}  # fmt: skip
MOST_PANELS = 12
MOST_NAMES = 8  # in a legend; with the kinds of marks these are at most 12 entries
MOST_POINTS = 40  # magnitudes of a line that are drawn with a mark and the seeds of each
NAME_LENGTH, NAME_LINES = 44, 3  # characters of a name on a line, and its lines, in a legend
PANEL_NAME_LENGTH = 22  # above one of two panels
TIP = "tip:"  # prefix of a group id that becomes a tooltip in the report
GREY = "0.35"  # of the marks in a legend, whatever their colour in the figure
INTERVAL: dict[str, Any] = {"linewidth": 1.1, "alpha": 0.65, "solid_capstyle": "butt"}
MARKS: dict[str, tuple[str, dict[str, Any]]] = {
    "seed": ("one seed", {"marker": ".", "markersize": 3}),
    "interval": ("95 % interval (bar, band)", {"marker": "|", "markersize": 9}),
    "chosen": ("chosen on validation", {"marker": "o", "markersize": 8, "mfc": "none"}),
    "tie": ("ties with it on validation", {"marker": "_", "markersize": 8}),
    "optimum": (
        "smooth optimum, 95 % interval",
        {"marker": "o", "markersize": 5, "linestyle": "-"},
    ),
    "cut": ("interval ends with the grid", {"marker": "^", "markersize": 6}),
    "dense": ("dense", {"linestyle": "--", "linewidth": 0.8}),
    "control": ("dense, trained as long", {"marker": "x", "markersize": 5}),
}
"""The kinds of marks that a legend explains, and how they look there."""


@dataclass(frozen=True)
class Look:
    """How the marks of one size look."""

    colour: str
    dash: str = "-"
    marker: str = "o"


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


def looks_of(
    results: Sequence[SizeResult], columns: Sequence[str] | None = None
) -> dict[str, Look]:
    """Return the look of each name that `names_of` gives.

    A number that distinguishes sizes, such as the width, is a shade of a sequential palette, and
    dashes and markers are for the rest of the name. Names without a number get distinct colours.
    """
    names = names_of(results, columns)
    kept = [name for name in _distinguishing(results, columns) if name not in BUDGETS]
    for column in kept:
        values = sorted({result.size[column] for result in results if _is_number(result, column)})
        rests = list(dict.fromkeys(_rest(result, kept, column) for result in results))
        is_ordered = len(values) > 1 and all(_is_number(result, column) for result in results)
        if is_ordered and len(rests) <= len(DASHES):
            shades = colormaps[SEQUENCE](np.linspace(LIGHTEST, 0.0, len(values)))
            colours = [to_hex(shade) for shade in shades]
            return {
                name: Look(
                    colours[values.index(result.size[column])],
                    DASHES[rests.index(_rest(result, kept, column))],
                    MARKERS[rests.index(_rest(result, kept, column))],
                )
                for name, result in zip(names, results, strict=True)
            }
    return {name: distinct(at) for at, name in enumerate(dict.fromkeys(names))}


def distinct(position: int) -> Look:
    """Return the look at `position` of those for unordered names; 28 of them differ."""
    colour, at = COLOURS[position % len(COLOURS)], position // len(COLOURS) % len(DASHES)
    return Look(colour, DASHES[at], MARKERS[at])


def _is_number(result: SizeResult, column: str) -> bool:
    value = result.size[column]
    return isinstance(value, int | float) and not isinstance(value, bool)


def _rest(result: SizeResult, columns: Sequence[str], column: str) -> tuple[Any, ...]:
    return tuple(result.size[name] for name in columns if name != column)


def are_legible(results: Sequence[SizeResult], columns: Sequence[str] | None = None) -> bool:
    """Return whether a legend can name the sizes: few enough, or in the order of their shades."""
    looks = looks_of(results, columns)
    dashes = {look.dash for look in looks.values()}
    is_ordered = not {look.colour for look in looks.values()} & set(COLOURS)
    return len(looks) <= MOST_NAMES or (is_ordered and len(dashes) == 1)


def label(split: str, metric: Metric, difference: bool = False) -> str:
    """Return an axis label: `test top-1 (%)`; differences of percentages are points."""
    name = "top-1" if metric.name == "top1" else metric.name
    return f"{split} {name} ({metric.difference_unit if difference else metric.unit})"


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
    if len(magnitudes) > MOST_POINTS:
        magnitudes = round_magnitudes(magnitudes)
    texts = {place_of(magnitude, results): format_value(magnitude) for magnitude in magnitudes}
    places = list(texts)
    inches = 1.8 if axis.axis_name == "y" else 1.25 if panel_count > 1 else 2.8
    letters = 2 if axis.axis_name == "y" else max(map(len, texts.values()), default=0)
    least = (places[-1] - places[0]) * (0.055 * letters + 0.06) / inches if places else 0.0
    shown = spaced(places, lambda last: last + least)
    axis.set_ticks(places, [texts[place] if place in shown else "" for place in places])


def round_magnitudes(magnitudes: Sequence[float | str]) -> list[float | str]:
    """Return round numbers between these magnitudes, for the ticks of an axis, and `none`."""
    low, high = (float(end(m for m in magnitudes if m != NONE)) for end in (min, max))
    ticks = MaxNLocator(5).tick_values(low, high)
    inside = [float(f"{tick:.6g}") for tick in ticks if low <= tick <= high]
    return [*(m for m in magnitudes if m == NONE), *inside]


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
    look: Look,
    tooltip: str,
    half: float = math.nan,
    seeds: Sequence[float] = (),
    **style: Any,
) -> None:
    """Draw a mark with its tooltip, which the report shows, its interval, and its cell's seeds.

    `half` is the half-width of the interval, NaN where there is none.
    """
    if not math.isnan(half):
        axes.plot([x, x], [y - half, y + half], color=look.colour, **INTERVAL)
    shown = {"color": look.colour, "marker": look.marker, "linestyle": "", "markersize": 4, **style}
    (point,) = axes.plot([x], [y], **shown)
    point.set_gid(TIP + tooltip)
    if seeds:
        axes.plot([x] * len(seeds), seeds, ".", color=look.colour, markersize=2, alpha=0.7)


def finish(
    figure: Figure, panels: Sequence[Any], x_label: str, y_label: str, marks: Collection[str] = ()
) -> Figure:
    """Return the figure with its labels and a legend of its names and of these `MARKS`."""
    for axes in panels[-2:]:
        axes.set_xlabel(x_label)
    figure.supylabel(y_label, fontsize=POINTS)
    add_legend(figure, panels, marks)
    return figure


def add_legend(figure: Figure, panels: Sequence[Any], marks: Collection[str]) -> None:
    """Add a legend below: names, if there is more than one, then marks; the figure grows by it.

    Of more than `MOST_NAMES` names, which are then ordered, some are shown at even distances.
    """
    lines: dict[str, Any] = {}
    for axes in panels:
        for handle, text in zip(*axes.get_legend_handles_labels(), strict=True):
            lines.setdefault(text, handle)
    names = list(lines) if len(lines) > 1 else []
    if len(names) > MOST_NAMES:
        names = [names[round(at)] for at in np.linspace(0, len(names) - 1, MOST_NAMES)]
    entries = [(name, lines[name]) for name in names]
    for text, style in (MARKS[mark] for mark in MARKS if mark in marks):
        entries.append((text, Line2D([], [], **{"color": GREY, "linestyle": "", **style})))
    if not entries:
        return
    texts = [text for text, _ in entries]
    longest = max(len(row) for text in texts for row in text.splitlines())
    columns = 3 if longest < 14 else 2 if longest < 32 else 1
    high = sum(_lines_of_rows(texts, columns))
    figure.set_figheight(figure.get_figheight() + 0.05 + 0.13 * high)
    figure.legend([handle for _, handle in entries], texts, loc="outside lower center",
                  ncols=columns, fontsize=POINTS - 2, frameon=False)  # fmt: skip


def _lines_of_rows(texts: Sequence[str], columns: int) -> list[int]:
    """Return how many lines of text each row of a legend has, which is filled column by column."""
    high = math.ceil(len(texts) / columns)
    return [max(text.count("\n") + 1 for text in texts[row::high]) for row in range(high)]


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
    kept = _distinguishing(results, columns)
    return [name_of(result.size, kept) for result in results]


def _distinguishing(results: Sequence[SizeResult], columns: Sequence[str] | None) -> list[str]:
    """Return the columns that no other one determines, and the length of training."""
    kept: list[str] = []
    for name in results[0].size if columns is None else columns:
        if name in BUDGETS or not any(is_function(results, other, name) for other in kept):
            kept.append(name)
    return kept


def is_function(results: Sequence[SizeResult], of: str, name: str) -> bool:
    """Return whether sizes that agree in the column `of` agree in the column `name`."""
    pairs = {(result.size[of], result.size[name]) for result in results}
    return len(dict(pairs)) == len(pairs)


def name_of(size: Mapping[str, Any], columns: Iterable[str]) -> str:
    """Return the name of a size: `width 0.5, sparsity 0.9, 6 epochs`, without missing values."""
    values = {name: size[name] for name in columns}
    shown = {name: value for name, value in values.items() if not is_missing(value)} or values
    return ", ".join(_part_of_name(*item) for item in shown.items()) or "all"


def _part_of_name(column: str, value: Any) -> str:
    if column in BUDGETS:
        return f"{format_value(value)} {column}"
    return f"{column.replace('_', ' ')} {format_value(value)}"


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
