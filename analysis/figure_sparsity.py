"""The figure of the test result against sparsity."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from analysis import drawing
from analysis.best import SizeResult, best_per_size
from analysis.cells import size_columns
from analysis.columns import TOP1, Metric
from analysis.render import format_interval, format_value


def accuracy_against_sparsity(
    frame: pd.DataFrame, metric: Metric = TOP1, by: Sequence[str] | None = None
) -> Figure | None:
    """Draw the test result at the magnitude that validation chose; compression on the top axis.

    Rows that differ in another column of the size, such as `width` or `schedule`, get lines of
    their own. A dashed line shows the dense model. A cross shows its dense-long control, at the
    sparsity of the trials that train for as many levels. Returns None if the rows have fewer than
    two sparsities.
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
    figure, (axes,) = drawing.panels()
    names = drawing.names_of([results[0] for results in lines.values()], columns)
    for position, (name, results) in enumerate(zip(names, lines.values(), strict=True)):
        colour, dash = drawing.colour_and_dash(position)
        pruned = [result for result in results if not result.size.get("dense_long")]
        x = [result.size["sparsity"] for result in pruned]
        y = [metric.scale * result.test for result in pruned]
        axes.plot(x, y, dash, color=colour, marker="o", markersize=4, label=drawing.fit_text(name),
                  linewidth=1.2)  # fmt: skip
        for result in pruned:
            _mark(axes, result, result.size["sparsity"], name, position, "o", metric)
            if not result.size["sparsity"]:
                level = metric.scale * result.test
                axes.axhline(level, color=colour, linestyle="--", linewidth=0.6)
        for result in results:
            if matched := result.size.get("dense_long"):
                _mark(axes, result, matched, f"{name}, dense", position, "x", metric)
    top = axes.secondary_xaxis("top")
    ticks = sorted({result.size["sparsity"] for results in lines.values() for result in results})
    top.set_xticks(ticks, [f"{1 / (1 - sparsity):.3g}" for sparsity in ticks])
    top.set_xlabel("compression of the prunable weights", fontsize=drawing.POINTS)
    top.tick_params(labelsize=drawing.POINTS - 1)
    return drawing.finish(figure, [axes], "sparsity", drawing.label("test", metric))


def _mark(
    axes: Any, result: SizeResult, x: float, name: str, position: int, marker: str, metric: Metric
) -> None:
    """Draw the mean and the seeds of a result."""
    assert result.best is not None
    shown = format_interval(result.test, result.test_half, metric)
    tooltip = f"{name}, at {x:g}: {shown} with magnitude {format_value(result.best.magnitude)}"
    seeds = [metric.scale * value for value in result.best.test]
    drawing.draw_point(axes, x, metric.scale * result.test, position, tooltip, marker, seeds=seeds)
