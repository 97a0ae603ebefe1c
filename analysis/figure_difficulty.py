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
from analysis.render import format_score, format_value
from harness.statistics import rank_correlation

Point = tuple[str, float, Cell]  # a policy, a teacher's loss on its images (nats), a magnitude


def difficulty_against_accuracy(
    frame: pd.DataFrame, metric: Metric = TOP1, by: Sequence[str] | None = None
) -> Figure | None:
    """Draw the mean test result against difficulty.

    A dot per policy and magnitude, a colour per policy, a panel per size with Spearman's rank
    correlation above it. None without the column `difficulty`, or with too many sizes.
    """
    points_of = _points_by_size(frame, metric, by)
    if not points_of or len(points_of) > drawing.MOST_PANELS:
        return None
    figure, each = drawing.panels(len(points_of))
    policies = list(
        dict.fromkeys(policy for points in points_of.values() for policy, _, _ in points)
    )
    for axes, (name, points) in zip(each, points_of.items(), strict=True):
        for policy, difficulty, cell in points:
            position = policies.index(policy)
            setting = f"{policy} magnitude {format_value(cell.magnitude)}".strip()
            drawing.draw_point(
                axes, difficulty, metric.scale * cell.mean_test, position,
                f"{name}, {setting}: {format_score(cell.mean_test, metric)}",
                drawing.marker(position), [metric.scale * value for value in cell.test],
                markersize=3, label=drawing.fit_text(policy or "all"),
            )  # fmt: skip
        _, x, cells = zip(*points, strict=True)
        rho = rank_correlation(x, [cell.mean_test for cell in cells]).effect
        title = drawing.fit_text(name, drawing.PANEL_NAME_LENGTH)
        shown = title if math.isnan(rho) else f"{title}\nrho = {rho:.2f}"
        axes.set_title(shown, fontsize=drawing.POINTS)
    return drawing.finish(figure, each, "difficulty (nats)", drawing.label("test", metric))


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
