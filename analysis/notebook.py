"""The analysis as functions for notebooks and scripts: `from analysis.notebook import rows, best`.

Frames go in, frames come out. Nothing is printed, and only `report` writes files.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from analysis.best import best_per_size
from analysis.checks import check
from analysis.claims import claims as claim_results
from analysis.columns import METRICS, Metric
from analysis.commands import keys_in, load, selected
from analysis.compare import compare as cell_changes
from analysis.figures import figures as drawn_figures
from analysis.provenance import warnings
from analysis.render import Table
from analysis.report import write_report
from analysis.table import best_table
from harness.errors import UserError, nearest
from harness.statistics import NO_ESTIMATE, Optimum

__all__ = ["best", "claims", "compare", "figures", "report", "rows", "table"]


def rows(source: Any = None, where: str | None = None, **words: Any) -> pd.DataFrame:
    """Return checked rows of files (one path or several), a DataFrame, or a sweep (`grid="name"`).

    `words` are those of the commands: `rows(grid="quickstart", store="runs/store")`. Raises a
    UserError that lists every mistake of the rows.
    """
    if source is not None and words:
        raise UserError(f"with rows of its own these words mean nothing: {', '.join(words)}")
    if isinstance(source, pd.DataFrame):
        return selected(check(source, "the DataFrame"), where)
    paths = [source] if isinstance(source, str | Path) else source
    overrides = [f"{key}={value}" for key, value in words.items()]
    return selected(load(overrides, paths, keys=keys_in(where)), where)


def best(
    frame: pd.DataFrame, by: Sequence[str] | None = None, metric: str = "top1"
) -> pd.DataFrame:
    """Return the best magnitude for each size: chosen on validation, reported on test.

    Accuracies are shares; a column `..._half` is the half-width of a 95 % interval; unknown values
    are NaN.
    """
    unknown = Optimum(math.nan, math.nan, math.nan, (math.nan, math.nan))
    return pd.DataFrame(
        {
            **result.size,
            "params_nonzero": result.params,
            "best": result.best.magnitude if result.best else None,
            "ties": result.ties,
            "optimum": (optimum := result.optimum or unknown).at,
            "optimum_low": optimum.low,
            "optimum_high": optimum.high,
            "val": result.best.mean_val if result.best else math.nan,
            **{name: getattr(result, name) for name in ("test", "test_half", "gain", "gain_half")},
            "missing": sum(cell.missing for cell in result.cells),
            "diverged": sum(cell.diverged for cell in result.cells),
        }
        for result in best_per_size(frame, by, _metric(metric))
    )


def table(frame: pd.DataFrame, by: Sequence[str] | None = None, metric: str = "top1") -> Table:
    """Return the table of the best magnitude, which a notebook displays.

    `analysis.commands.show` gives it in the formats of the commands.
    """
    return best_table(best_per_size(frame, by, _metric(metric)), warnings(frame), _metric(metric))


def claims(
    frame: pd.DataFrame,
    metric: str = "top1",
    unequal_budgets: bool = False,
    by: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Return every claim's verdict, effect, interval and p-value, a row per claim and group."""
    return pd.DataFrame(
        {
            **vars(result),
            "effect": (estimate := result.effect.estimate if result.effect else NO_ESTIMATE).effect,
            "half": estimate.half,
        }
        for result in claim_results(frame, _metric(metric), unequal_budgets, by)
    )


def compare(
    before: pd.DataFrame, after: pd.DataFrame, by: Sequence[str] | None = None, metric: str = "top1"
) -> pd.DataFrame:
    """Return every cell of two sweeps, and whether it changed by more than noise on validation."""
    changes = cell_changes(before, after, by, _metric(metric))
    return pd.DataFrame({**change.size, **vars(change)} for change in changes).drop(columns="size")


def figures(
    frame: pd.DataFrame, by: Sequence[str] | None = None, metric: str = "top1"
) -> dict[str, Figure]:
    """Return every figure that the rows allow, by name; `analysis.drawing.save` writes one."""
    return drawn_figures(frame, best_per_size(frame, by, _metric(metric)), _metric(metric), by)


def report(
    frame: pd.DataFrame, out: str | Path, by: Sequence[str] | None = None, metric: str = "top1"
) -> Path:
    """Write `report.html` with its rows into `out`; return the path of the page."""
    words = [*([f"by={','.join(by)}"] if by else []), *([f"metric={metric}"] * (metric != "top1"))]
    return write_report(frame, out, by, _metric(metric), words)[0]


def _metric(name: str) -> Metric:
    if name not in METRICS:
        raise UserError(f"metric={name} is not a valid choice{nearest(name, METRICS)}")
    return METRICS[name]
