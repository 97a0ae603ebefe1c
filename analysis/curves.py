"""Figures whose x-axis is no magnitude: accuracy against sparsity, and against difficulty."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from analysis.best import POLICY, TOP1, Best, Metric, best_per_size, cells_per_size, size_columns
from analysis.drawing import (
    COLOURS,
    MARKERS,
    POINTS,
    add_legend,
    canvas,
    colour_and_dash,
    dots,
    label,
    names_of,
    panels,
    plain,
    tip,
)
from analysis.render import interval, number
from analysis.stats import mean, rank_correlation

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

MOST_PANELS = 12
PANEL_LINE = 22  # characters above one of two panels


def metric_against_sparsity(
    frame: pd.DataFrame, metric: Metric = TOP1, by: Sequence[str] | None = None
) -> Figure | None:
    """Test result at the magnitude that validation chose, against sparsity; compression on top.

    A line per schedule (column `schedule`) and per remaining size. Dashed: the dense model of the
    same line. Crosses: its dense-long control, at the sparsity whose budget it spends.
    """
    if "sparsity" not in frame.columns or frame["sparsity"].nunique() < 2:
        return None
    frame = frame[frame["sparsity"].notna()]
    columns = [n for n in size_columns(frame, by) if n not in ("sparsity", "dense_long")]
    long = "dense_long" in frame.columns
    sizes = [*columns, "sparsity", *(["dense_long"] if long else [])]
    lines: dict[tuple[Any, ...], list[Best]] = {}
    for line in best_per_size(frame, sizes, metric, optima=False):
        if line.best:
            lines.setdefault(tuple(line.size[name] for name in columns), []).append(line)
    figure, axes = canvas()
    names = names_of([found[0] for found in lines.values()], columns)
    for position, (name, found) in enumerate(zip(names, lines.values(), strict=True)):
        colour, dash = colour_and_dash(position)
        sparse = [line for line in found if not (long and line.size["dense_long"])]
        x = [line.size["sparsity"] for line in sparse]
        y = [metric.scale * line.test for line in sparse]
        axes.plot(x, y, dash, color=colour, marker="o", markersize=4, label=plain(name),
                  linewidth=1.2)  # fmt: skip
        for line in sparse:
            _mark(axes, line, line.size["sparsity"], name, position, "o", metric)
            if not line.size["sparsity"]:
                level = metric.scale * line.test
                axes.axhline(level, color=colour, linestyle="--", linewidth=0.6)
        for line in found:
            if line not in sparse:
                _mark(axes, line, line.size["dense_long"], f"{name}, dense", position, "x", metric)
    axes.set_xlabel("sparsity")
    axes.set_ylabel(label("test", metric))
    top = axes.secondary_xaxis("top")
    ticks = sorted({line.size["sparsity"] for found in lines.values() for line in found})
    top.set_xticks(ticks, [f"{1 / (1 - share):.3g}" for share in ticks])
    top.set_xlabel("compression of the prunable weights", fontsize=POINTS)
    top.tick_params(labelsize=POINTS - 1)
    add_legend(figure, [axes])
    return figure


def _mark(
    axes: Any, line: Best, at: float, name: str, position: int, shape: str, metric: Metric
) -> None:
    assert line.best is not None
    colour, _ = colour_and_dash(position)
    mark = axes.plot([at], [metric.scale * line.test], shape, color=colour, markersize=4)
    told = interval(line.test, line.test_half, metric)
    tip(mark[0], f"{name}, at {at:g}: {told} with magnitude {number(line.best.magnitude)}")
    dots(axes, at, line.best.test, metric, position)


def difficulty_against_accuracy(
    frame: pd.DataFrame, metric: Metric = TOP1, by: Sequence[str] | None = None
) -> Figure | None:
    """Mean test result against a teacher's loss on the augmented images (column `difficulty`).

    A dot per policy and magnitude, a colour per policy, a panel per size, with Spearman's rank
    correlation above it.
    """
    points = difficulty_points(frame, metric, by)
    if not points or len(points) > MOST_PANELS:
        return None
    figure, each = panels(len(points))
    policies = list(dict.fromkeys(spot.policy for _, spots in points for spot in spots))
    for axes, (name, spots) in zip(each, points, strict=True):
        for spot in spots:
            position = policies.index(spot.policy)
            colour, _ = colour_and_dash(position)
            shape = MARKERS[position // len(COLOURS) % len(MARKERS)]
            mark = axes.plot([spot.difficulty], [metric.scale * spot.mean], shape, markersize=3,
                             color=colour, label=plain(spot.policy or "all"))  # fmt: skip
            tip(mark[0], f"{name}, {spot.name}: {interval(spot.mean, math.nan, metric)}")
            dots(axes, spot.difficulty, spot.test, metric, position)
        x, y = [spot.difficulty for spot in spots], [spot.mean for spot in spots]
        rho = rank_correlation(x, y).effect
        title = plain(name, PANEL_LINE)
        axes.set_title(f"{title}\nrho = {rho:.2f}" if rho == rho else title, fontsize=POINTS)
    for axes in each[-2:]:
        axes.set_xlabel("difficulty (nats)")
    figure.supylabel(label("test", metric), fontsize=POINTS)
    add_legend(figure, each)
    return figure


@dataclass(frozen=True)
class Spot:
    """A policy at a magnitude: a teacher's loss on its images, and the test results."""

    policy: str
    name: str  # with its magnitude
    difficulty: float  # nats
    test: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean over seeds."""
        return mean(self.test)


def difficulty_points(
    frame: pd.DataFrame, metric: Metric = TOP1, by: Sequence[str] | None = None
) -> list[tuple[str, Sequence[Spot]]]:
    """Per size its name and a spot for every cell that is done."""
    if "difficulty" not in frame.columns:
        return []
    known = frame[frame["difficulty"].notna()]
    axes = [name for name in size_columns(known, by) if name not in POLICY] if len(known) else []
    found: dict[str, list[Spot]] = {}
    inside = [*axes, *(["policy"] if "policy" in known.columns else []), "difficulty"]
    for size, cells, _ in cells_per_size(known, inside, metric) if len(known) else []:
        name = ", ".join(f"{key} {number(size[key])}" for key in axes) or "all"
        for cell in cells:
            if cell.usable:
                which = f"{size.get('policy', '')} magnitude {number(cell.magnitude)}".strip()
                spot = Spot(
                    str(size.get("policy") or ""), which, float(size["difficulty"]), cell.test
                )
                found.setdefault(name, []).append(spot)
    return list(found.items())
