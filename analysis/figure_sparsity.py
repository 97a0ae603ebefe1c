"""The figure of the test result against sparsity."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analysis import drawing
from analysis.best import SizeResult, best_per_size
from analysis.cells import LENGTHS, ranges, size_columns
from analysis.columns import TOP1, Metric, values_of
from analysis.render import format_interval, format_range, format_value


def accuracy_against_sparsity(
    frame: pd.DataFrame, metric: Metric = TOP1, by: Sequence[str] | None = None
) -> Figure | None:
    """Draw the test result at the magnitude that validation chose, against sparsity.

    The axis is logarithmic in compression, and shows the lengths of the paths where they differ.
    Rows that differ in another column of the size, such as `width` or `schedule`, get lines of
    their own. A dashed line shows the dense model. A cross shows its dense-long control, at the
    sparsity of the trials that train for as many levels. Returns None if the rows have fewer than
    two sparsities, or too many lines for a legend.
    """
    if "sparsity" not in frame.columns or frame["sparsity"].nunique() < 2:
        return None
    frame = frame[frame["sparsity"].notna()]
    columns = [n for n in size_columns(frame, by) if n not in ("sparsity", "dense_long")]
    has_controls = "dense_long" in frame.columns
    sizes = [*columns, "sparsity", *(["dense_long"] if has_controls else [])]
    lines: dict[tuple[Any, ...], list[SizeResult]] = {}
    for result in best_per_size(frame, sizes, metric, optima=False):
        if result.best:
            lines.setdefault(tuple(result.size[name] for name in columns), []).append(result)
    if not lines:
        return None
    firsts = [results[0] for results in lines.values()]
    if not drawing.are_legible(firsts, columns):
        return None
    figure, (axes,) = drawing.panels()
    names, looks = drawing.names_of(firsts, columns), drawing.looks_of(firsts, columns)
    marks = {"seed"}
    for name, results in zip(names, lines.values(), strict=True):
        pruned = [result for result in results if not result.size.get("dense_long")]
        x = [result.size["sparsity"] for result in pruned]
        y = [metric.scale * result.test for result in pruned]
        look, shown = looks[name], drawing.fit_text(name)
        axes.plot(x, y, look.dash, color=look.colour, label=shown, linewidth=1.2)
        for result in pruned:
            _mark(axes, result, result.size["sparsity"], name, look, metric)
            if not result.size["sparsity"]:
                level = metric.scale * result.test
                axes.axhline(level, color=look.colour, linestyle="--", linewidth=0.6, zorder=0)
                marks.add("dense")
        for result in results:
            marks |= set() if math.isnan(result.test_half) else {"interval"}
            if matched := result.size.get("dense_long"):
                _mark(axes, result, matched, f"{name}, dense", look, metric, marker="x")
                marks.add("control")
    unit = _finish_axis(axes, frame)
    y_label = f"{drawing.label('test', metric)} at the\nmagnitude chosen on validation"
    return drawing.finish(figure, [axes], f"sparsity{unit}", y_label, marks)


def _finish_axis(axes: Any, frame: pd.DataFrame) -> str:
    """Set scale and ticks of the axis of sparsity; return what the second line of ticks shows."""
    axes.set_xscale("function", functions=(_log_compression, lambda x: 1 - 2.0**-x))
    axes.minorticks_off()
    pruned = frame[[not value for value in values_of(frame, "dense_long")]]
    lengths = ranges(pruned, ["sparsity"], LENGTHS)
    levels = sorted({*frame["sparsity"], *filter(None, values_of(frame, "dense_long"))})
    places = dict(zip(_log_compression(np.array(levels)), levels, strict=True))
    apart = (max(places) - min(places)) / 7
    ticks = [places[at] for at in drawing.spaced(list(places), lambda last: last + apart)]
    texts = [f"{sparsity:.4g}" for sparsity in ticks]
    name = next((name for name in LENGTHS if any(name in known for known in lengths.values())), "")
    if len({known.get(name) for known in lengths.values()}) > 1:
        shown = {key: format_range(*known[name]) for key, known in lengths.items() if name in known}
        texts = [f"{text}\n{shown.get((at,), '-')}" for text, at in zip(texts, ticks, strict=True)]
    axes.set_xticks(ticks, texts)
    return f" (below: {name} along the path)" if "\n" in texts[0] else ""


def _log_compression(sparsity: Any) -> Any:
    """Return log2 of the compression of the prunable weights."""
    return -np.log2(np.clip(1 - np.asarray(sparsity, float), 1e-6, None))


def _mark(
    axes: Any,
    result: SizeResult,
    x: float,
    name: str,
    look: drawing.Look,
    metric: Metric,
    **style: Any,
) -> None:
    """Draw the mean of a result with its interval and seeds."""
    assert result.best is not None
    shown = format_interval(result.test, result.test_half, metric)
    tooltip = f"{name}, at {x:g}: {shown} with magnitude {format_value(result.best.magnitude)}"
    seeds = [metric.scale * value for value in result.best.test]
    half = metric.scale * result.test_half
    drawing.draw_point(axes, x, metric.scale * result.test, look, tooltip, half, seeds, **style)
