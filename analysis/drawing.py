"""What the figures share: paper size, colours, the magnitude axis, tooltips, files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
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
TIP = "tip:"  # a group id that becomes a tooltip in the report


def canvas(height: float = 2.5, columns: int = 1) -> tuple[Figure, Any]:
    """A figure of one paper column and its axes; no pyplot, so no state and no display."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH_INCHES * max(1.0, columns / 2), height), layout="constrained")
    axes = figure.subplots(1, columns, squeeze=False, sharey=True)[0]
    for each in axes:
        each.spines[["top", "right"]].set_visible(False)
        each.tick_params(labelsize=POINTS - 1)
        each.xaxis.label.set_size(POINTS)
        each.yaxis.label.set_size(POINTS)
        each.title.set_size(POINTS)
    return figure, axes[0] if columns == 1 else axes


def colour_and_dash(position: int) -> tuple[str, str]:
    """Of the line at `position`: 28 that differ."""
    return COLOURS[position % len(COLOURS)], DASHES[position // len(COLOURS) % len(DASHES)]


def label(split: str, metric: Metric) -> str:
    """`test top-1 (%)`."""
    return f"{split} top-1 (%)" if metric.name == "top1" else f"{split} {metric.name} (nats)"


def place_of(magnitude: float | str, found: Sequence[Best]) -> float:
    """Where a magnitude stands on the axis; `none` is left of 0, detached from the line."""
    if magnitude != NONE:
        return float(magnitude)
    step = min((m for m in _magnitudes(found) if m), default=0.2)
    return -max(0.1, step / 2)


def _magnitudes(found: Sequence[Best]) -> list[float]:
    numbers = {c.magnitude for line in found for c in line.cells if c.magnitude != NONE}
    return sorted(float(m) for m in numbers)


def finish_magnitudes(axes: Any, found: Sequence[Best], with_none: bool = True) -> None:
    """Ticks and label of the magnitude axis."""
    ticks = _magnitudes(found)
    shown = with_none and any(c.magnitude == NONE for line in found for c in line.cells)
    places = [place_of(NONE, found), *ticks] if shown else ticks
    axes.set_xticks(places, [NONE, *map(number, ticks)] if shown else [*map(number, ticks)])
    axes.set_xlabel("augmentation magnitude")


def dots(axes: Any, at: float, values: Sequence[float], metric: Metric, position: int) -> None:
    """The seeds of a cell, each a dot."""
    colour, _ = colour_and_dash(position)
    scaled = [metric.scale * value for value in values]
    axes.plot([at] * len(values), scaled, ".", color=colour, markersize=2, alpha=0.7)


def add_legend(figure: Figure, axes: Any) -> None:
    """A legend below, where there is more than one line; the figure grows by its rows."""
    handles, texts = axes.get_legend_handles_labels()
    if len(texts) > 1:
        columns = 2 if max(map(len, texts)) < 28 else 1
        height = figure.get_figheight() + 0.14 * math.ceil(len(texts) / columns)
        figure.set_figheight(height)
        figure.legend(handles, texts, loc="outside lower center", ncols=columns,
                      fontsize=POINTS - 2, frameon=False)  # fmt: skip


def tip(artist: Any, text: str) -> None:
    """Give an artist the text that the report shows when the pointer is on it."""
    artist.set_gid(TIP + text)


def save(figure: Figure, path: Path) -> list[Path]:
    """`path` as .png and .pdf, the same bytes for the same rows."""
    import io

    from harness.store.files import atomic_write, make_folder

    make_folder(path.parent)
    written = []
    for suffix, metadata in ((".png", {"Software": None}), (".pdf", {"CreationDate": None})):
        buffer = io.BytesIO()
        figure.savefig(buffer, format=suffix[1:], dpi=200, metadata=metadata)
        atomic_write(path.with_suffix(suffix), buffer.getvalue())
        written.append(path.with_suffix(suffix))
    return written
