"""The analysis as functions for notebooks and scripts: `from analysis.notebook import rows, best`.

Frames go in, frames come out. Nothing is printed, and only `report` writes files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from analysis.best import best_per_size
from analysis.checks import check
from analysis.claims import claims as claim_results
from analysis.columns import METRICS, Metric
from analysis.commands import column_of, keys_in, load, selected, with_label
from analysis.compare import compare as cell_changes
from analysis.figures import figures as drawn_figures
from analysis.provenance import setting, warnings
from analysis.render import Table
from analysis.report import write_report
from analysis.table import best_table, numbers
from analysis.targets import targets_table
from harness.arguments import split_list
from harness.errors import UserError, nearest

__all__ = ["best", "claims", "compare", "figures", "report", "rows", "table"]


Columns = Sequence[str] | str
"""Names of columns: a list, or a text with commas, as on the command line."""


def rows(
    source: Any = None,
    where: str | None = None,
    *,
    grid: str | None = None,
    store: str | Path | None = None,
    **overrides: Any,
) -> pd.DataFrame:
    """Return checked rows of files (one path or several), a DataFrame, or a sweep.

    A sweep is named as on the command line: `rows(grid="quickstart", store="runs/store")`;
    `overrides` are other keys of its config: `**{"axes.seed": [0, 1]}`. Raises a UserError that
    lists every mistake of the rows.
    """
    words = {"grid": grid, "store": store} | overrides
    words = {name: value for name, value in words.items() if value is not None}
    if source is not None and words:
        raise UserError(f"with rows of its own these words mean nothing: {', '.join(words)}")
    if isinstance(source, pd.DataFrame):
        return selected(check(source, "the DataFrame"), where)
    paths = [source] if isinstance(source, str | Path) else source
    arguments = [f"{key}={value}" for key, value in words.items()]
    return selected(load(arguments, paths, keys=keys_in(where)), where)


def best(
    frame: pd.DataFrame,
    by: Columns | None = None,
    metric: str = "top1",
    where: str | None = None,
) -> pd.DataFrame:
    """Return the best magnitude for each size: chosen on validation, reported on test.

    `by` names the columns that define a size (`"width,sparsity"`), `where` selects rows (`"width <
    1"`), `metric` is a name such as `top1`, `loss` or `corrupted` (docs/evaluation.md). Accuracies
    are shares; a column `..._half` is the half-width of a 95 % interval; unknown values are NaN.
    """
    frame, names = _selection(frame, by, where)
    chosen = _metric(metric)
    results = best_per_size(frame, names, chosen)
    values = numbers(results, replace(chosen, scale=1.0))
    return pd.DataFrame([result.size for result in results]).assign(**values)


def table(
    frame: pd.DataFrame,
    by: Columns | None = None,
    metric: str = "top1",
    where: str | None = None,
    columns: Columns | None = None,
    label: str | None = None,
    targets: bool = False,
) -> Table:
    """Return the table of the best magnitude, which a notebook displays.

    `by`, `metric` and `where` are those of `best`; `columns` (`"best,test,seeds"`) chooses columns,
    `label` is that of LaTeX. `analysis.commands.show(table, "latex")` gives it as a text in the
    formats of the commands, and its method `frame()` as numbers. `targets` shows the best magnitude
    for clean images, the worst class and corrupted images, whatever the `metric`.
    """
    frame, names = _selection(frame, by, where)
    chosen, notes = _metric(metric), warnings(frame, names)
    if targets:
        made = targets_table(frame, names, notes, setting(frame), _names(columns))
        return with_label(made, frame, label)
    results = best_per_size(frame, names, chosen)
    made = best_table(results, notes, chosen, setting(frame), _names(columns))
    return with_label(made, frame, label)


def claims(
    frame: pd.DataFrame,
    metric: str = "top1",
    unequal_budgets: bool = False,
    by: Columns | None = None,
    where: str | None = None,
) -> pd.DataFrame:
    """Return every claim's verdict, effect, interval and p-value, a row per claim and group.

    `unequal_budgets` also compares arms of unequal budgets; the others are those of `best`.
    """
    frame, names = _selection(frame, by, where)
    return pd.DataFrame(
        {
            **vars(result),
            "effect": result.estimate.effect,
            "half": result.estimate.half,
        }
        for result in claim_results(frame, _metric(metric), unequal_budgets, names)
    )


def compare(
    before: pd.DataFrame,
    after: pd.DataFrame,
    by: Columns | None = None,
    metric: str = "top1",
    where: str | None = None,
) -> pd.DataFrame:
    """Return every cell of two sweeps, and whether it changed by more than noise on validation.

    `by`, `metric` and `where` are those of `best`.
    """
    (before, names), (after, _) = (_selection(frame, by, where) for frame in (before, after))
    changes = cell_changes(before, after, names, _metric(metric))
    return pd.DataFrame({**change.size, **vars(change)} for change in changes).drop(columns="size")


def figures(
    frame: pd.DataFrame,
    by: Columns | None = None,
    metric: str = "top1",
    where: str | None = None,
) -> dict[str, Figure]:
    """Return every figure that the rows allow, by name; `analysis.drawing.save` writes one.

    `by`, `metric` and `where` are those of `best`.
    """
    frame, names = _selection(frame, by, where)
    results = best_per_size(frame, names, _metric(metric))
    return drawn_figures(frame, results, _metric(metric), names)


def report(
    frame: pd.DataFrame,
    out: str | Path,
    by: Columns | None = None,
    metric: str = "top1",
    where: str | None = None,
) -> Path:
    """Write `report.html` with its rows into `out`; return the path of the page.

    `by`, `metric` and `where` are those of `best`.
    """
    frame, names = _selection(frame, by, where)
    words = [f"by={','.join(names)}"] if names else []
    words += [f"metric={metric}"] * (metric != "top1")
    return write_report(frame, out, names, _metric(metric), words)[0]


def _selection(
    frame: pd.DataFrame, by: Columns | None, where: str | None
) -> tuple[pd.DataFrame, list[str] | None]:
    """Return the rows for which `where` holds, and the columns that `by` names."""
    names = _names(by)
    return selected(frame, where), names and [column_of(frame, name) for name in names]


def _names(names: Columns | None) -> list[str] | None:
    if names is None:
        return None
    return split_list(names) if isinstance(names, str) else list(names)


def _metric(name: str) -> Metric:
    if name not in METRICS:
        raise UserError(f"metric={name} is not a valid choice{nearest(name, METRICS)}")
    return METRICS[name]
