"""The figure of the test result against difficulty, a teacher's loss on the augmented images."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure

from analysis import drawing
from analysis.best import POLICY
from analysis.cells import Cell, cells_per_size, size_columns
from analysis.columns import TOP1, Metric
from analysis.render import format_interval, format_value
from harness import statistics as stats

Point = tuple[str, float, Cell]  # a policy, a teacher's loss on its images (nats), a magnitude


def difficulty_against_accuracy(
    frame: pd.DataFrame, metric: Metric = TOP1, by: Sequence[str] | None = None
) -> Figure | None:
    """Draw the mean test result against difficulty.

    A mark per policy and magnitude, a colour per policy unless they are too many, a panel per size
    with Spearman's rank correlation above it. None without the column `difficulty`, or with too
    many sizes.
    """
    points_of = _points_by_size(frame, metric, by)
    if not points_of or len(points_of) > drawing.MOST_PANELS:
        return None
    figure, each = drawing.panels(len(points_of))
    policies = list(
        dict.fromkeys(policy for points in points_of.values() for policy, _, _ in points)
    )
    has_names = len(policies) <= drawing.MOST_NAMES
    marks = {"seed"}
    for axes, (name, points) in zip(each, points_of.items(), strict=True):
        _, x, cells = zip(*points, strict=True)
        spread = stats.pooled([cell.test for cell in cells])
        for policy, difficulty, cell in points:
            half = stats.half_width(spread, len(cell.test))
            marks |= set() if math.isnan(half) else {"interval"}
            setting = f"{policy} magnitude {format_value(cell.magnitude)}".strip()
            drawing.draw_point(
                axes, difficulty, metric.scale * cell.mean_test,
                drawing.distinct(policies.index(policy) if has_names else 0),
                f"{name}, {setting}: {format_interval(cell.mean_test, half, metric)}",
                metric.scale * half, [metric.scale * value for value in cell.test],
                markersize=3,
                label=drawing.fit_text(policy or "all" if has_names else "a policy"),
            )  # fmt: skip
        rho = stats.rank_correlation(x, [cell.mean_test for cell in cells]).effect
        title = drawing.fit_text(name, drawing.PANEL_NAME_LENGTH)
        shown = title if math.isnan(rho) else f"{title}\nrho = {rho:.2f}"
        axes.set_title(shown, fontsize=drawing.POINTS)
    return drawing.finish(figure, each, "difficulty (nats)", drawing.label("test", metric), marks)


def _points_by_size(
    frame: pd.DataFrame, metric: Metric, by: Sequence[str] | None
) -> dict[str, list[Point]]:
    """Return the usable cells by the name of their size."""
    if "difficulty" not in frame.columns or frame["difficulty"].isna().all():
        return {}
    rows = frame[frame["difficulty"].notna()]
    axes = [name for name in size_columns(rows, by) if name not in POLICY]
    policy = ["policy"] if "policy" in rows.columns else []
    points: dict[str, list[Point]] = {}
    for size, cells, _ in cells_per_size(rows, [*axes, *policy, "difficulty"], metric):
        for cell in cells:
            if cell.is_usable:
                policy_name = format_value(size.get("policy") or "")
                point = (policy_name, float(size["difficulty"]), cell)
                points.setdefault(drawing.name_of(size, axes), []).append(point)
    return points
