"""The analysis as plain functions; `from analysis import rows, best, claims` calls these.

Frames go in, frames come out; nothing is printed and nothing is written but by `report`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.best import METRICS, Metric, best_per_size, warnings
from analysis.checks import check
from analysis.rows import choice, load
from analysis.table import selected
from harness.errors import UserError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from analysis.render import Table


def rows(source: Any = None, where: str | None = None, **words: Any) -> pd.DataFrame:
    """Checked rows of files (a path or several), of a DataFrame, or of a sweep (`grid="name"`).

    `words` are those of the commands: `rows(grid="quickstart", store="runs/store")`. Raises
    UserError with every mistake of the rows.
    """
    import pandas as pd

    if isinstance(source, pd.DataFrame):
        if words:
            raise UserError(f"with a DataFrame these words mean nothing: {', '.join(words)}")
        frame = check(source, "the DataFrame")
    else:
        paths = [source] if isinstance(source, str | Path) else source
        files = None if paths is None else ",".join(map(str, paths))
        frame = load([f"{key}={value}" for key, value in words.items()], files)
    return selected(frame, where)


def best(
    frame: pd.DataFrame, by: Sequence[str] | None = None, metric: str = "top1"
) -> pd.DataFrame:
    """The best magnitude for each size, a line per size: chosen on validation, reported on test.

    Accuracies are shares, `_half` is half of a 95 % interval; what is unknown is NaN.
    """
    import pandas as pd

    lines = []
    for line in best_per_size(frame, by, _metric(metric)):
        spot = line.optimum
        lines.append(
            {
                **line.size,
                "params_nonzero": line.params,
                "best": line.best.magnitude if line.best else None,
                "ties": line.ties,
                "optimum": spot.at if spot else math.nan,
                "optimum_low": spot.low if spot else math.nan,
                "optimum_high": spot.high if spot else math.nan,
                "val": line.best.mean_val if line.best else math.nan,
                "test": line.test,
                "test_half": line.test_half,
                "gain": line.gain,
                "gain_half": line.gain_half,
                "missing": sum(cell.missing for cell in line.cells),
                "diverged": sum(cell.diverged for cell in line.cells),
            }
        )
    return pd.DataFrame(lines)


def table(frame: pd.DataFrame, by: Sequence[str] | None = None, metric: str = "top1") -> Table:
    """The table of the best magnitude as a notebook shows it; `render.show` gives the formats."""
    from analysis import render

    known = _metric(metric)
    return render.table(best_per_size(frame, by, known), warnings(frame), known)


def claims(
    frame: pd.DataFrame,
    metric: str = "top1",
    unequal_budgets: bool = False,
    by: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Every claim's verdict, effect, interval and p-value, a line per claim and group."""
    import pandas as pd

    from analysis.claims import claims as test

    lines = []
    for claim in test(frame, _metric(metric), unequal_budgets, by):
        estimate = claim.effect.estimate if claim.effect else None
        lines.append(
            {
                "claim": claim.name,
                "group": claim.group,
                "verdict": claim.verdict,
                "effect": estimate.effect if estimate else math.nan,
                "half": estimate.half if estimate else math.nan,
                "p": claim.p,
                "seeds_to_settle": claim.seeds,
                "done": claim.done,
                "trials": claim.trials,
                "compared": claim.reason,
            }
        )
    return pd.DataFrame(lines)


def compare(
    before: pd.DataFrame,
    after: pd.DataFrame,
    by: Sequence[str] | None = None,
    metric: str = "top1",
) -> pd.DataFrame:
    """Every cell of two sweeps, and whether it changed by more than noise on validation."""
    import pandas as pd

    from analysis.compare import compare as cells

    return pd.DataFrame(
        {
            **change.size,
            "magnitude": change.magnitude,
            "before": change.before,
            "after": change.after,
            "half": change.half,
            "p": change.p,
            "verdict": change.verdict,
        }
        for change in cells(before, after, by, _metric(metric))
    )


def figures(
    frame: pd.DataFrame, by: Sequence[str] | None = None, metric: str = "top1"
) -> dict[str, Figure]:
    """Every figure that the rows allow, by name; `drawing.save` writes PDF and PNG."""
    from analysis.figures import figures as draw

    known = _metric(metric)
    return draw(frame, best_per_size(frame, by, known, optima=True), known, by)


def report(
    frame: pd.DataFrame, out: str | Path, by: Sequence[str] | None = None, metric: str = "top1"
) -> Path:
    """Write `report.html` with its rows into `out`; the path of the page."""
    from analysis.report import write_report

    words = [*([f"by={','.join(by)}"] if by else []), *([f"metric={metric}"] * (metric != "top1"))]
    return write_report(frame, Path(out), by, _metric(metric), words)[0]


def _metric(name: str) -> Metric:
    return METRICS[choice({"metric": name}, "metric", METRICS, name)]
