"""Two sweeps, or two versions of the code, cell by cell: what changed by more than noise.

python -m analysis.compare rows=before.csv with=after.csv
python -m analysis.compare grid=quickstart with=quickstart_next show=all format=markdown
python -m analysis.compare rows=a.csv with=b.csv by=width where="sparsity == 0" metric=loss

Cells are compared on validation, so that a choice between the two costs no test number.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from analysis import render, stats
from analysis.best import METRICS, MIXED, TOP1, Cell, Metric, cells_per_size, size_columns, warnings
from analysis.checks import flat
from analysis.rows import AXES, is_axis, load
from analysis.table import selected
from harness.arguments import Option, split_options
from harness.errors import UserError, command
from harness.verb import callable_module

if TYPE_CHECKING:
    import pandas as pd

OPTIONS = {
    "rows": Option(),
    "by": Option(list, example="width,sparsity"),
    "where": Option(),
    "metric": Option(default="top1", choices=METRICS),
    "format": Option(default="screen", choices=render.FORMATS),
    "with": Option(list, required=True, example="before.csv"),
    "show": Option(default="changed", choices=("changed", "all")),
}
LEVEL = 0.05
SUFFIXES = (".csv", ".parquet")
Key = tuple[Any, ...]


@dataclass(frozen=True)
class Change:
    """A cell in both sweeps, or in one; NaN where it cannot be told."""

    size: dict[str, Any]
    magnitude: float | str
    verdict: str  # changed, within noise, identical, one seed, only in first, not done in second...
    before: float = math.nan  # mean on validation
    after: float = math.nan
    half: float = math.nan  # of the 95 % interval of the change
    p: float = math.nan  # adjusted by Holm over all cells
    test_too: bool = False  # whether test results differ, of which nothing else is told

    @property
    def told(self) -> bool:
        """Whether a reader must know of it."""
        return self.verdict not in ("within noise", "identical")


def compare(
    before: pd.DataFrame,
    after: pd.DataFrame,
    by: Sequence[str] | None = None,
    metric: Metric = TOP1,
) -> list[Change]:
    """Every cell of either, in order.

    The spread is pooled over the cells of one size in both sweeps (over all cells where a size has
    one seed each), runs count as independent, p-values are Holm's over all cells compared.
    """
    columns = _columns(before, after, by)
    sides = [_cells(frame, columns, metric) for frame in (before, after)]
    every = stats.pooled([cell.val for side in sides for cells in side.values() for cell in cells])
    found: list[Change] = []
    for size in dict.fromkeys([*sides[0], *sides[1]]):
        old, new = ({cell.magnitude: cell for cell in side.get(size, ())} for side in sides)
        own = stats.pooled([cell.val for cell in (*old.values(), *new.values())])
        named = dict(zip(columns, size, strict=True))
        magnitudes = sorted({*old, *new}, key=lambda m: -1.0 if isinstance(m, str) else m)
        for magnitude in magnitudes:
            pair = old.get(magnitude), new.get(magnitude)
            found.append(_change(named, magnitude, pair, own if own.freedom else every))
    adjusted = stats.holm([change.p for change in found])
    return [_judged(change, p) for change, p in zip(found, adjusted, strict=True)]


def _columns(before: pd.DataFrame, after: pd.DataFrame, by: Sequence[str] | None) -> list[str]:
    """What tells sizes apart within either sweep or between them; both must have it."""
    import pandas as pd

    if by is None:
        asked = {*AXES, "grid", "magnitude", "seed", "state"}  # the rest would be copied in vain
        shared = [n for n in before.columns if n in after.columns and (n in asked or is_axis(n))]
        both = pd.concat([before[shared].astype(object), after[shared].astype(object)])
        found = [*size_columns(before), *size_columns(after), *size_columns(both)]
        by = list(dict.fromkeys(name for name in found if name != "grid"))
    for frame, word in ((before, "first"), (after, "second")):
        for name in by:
            if name not in frame.columns:
                raise UserError(
                    f"the {word} rows have no column '{name}', which tells sizes apart: name "
                    "columns that both have with by="
                )
    return list(dict.fromkeys(by))


def _cells(
    frame: pd.DataFrame, columns: Sequence[str], metric: Metric
) -> dict[Key, tuple[Cell, ...]]:
    found = cells_per_size(frame, columns, metric)
    return {tuple(size.values()): cells for size, cells, _ in found}


def _change(
    size: dict[str, Any],
    magnitude: float | str,
    pair: tuple[Cell | None, Cell | None],
    spread: stats.Spread,
) -> Change:
    old, new = pair
    if old is None or new is None:
        return Change(size, magnitude, "only in first" if old else "only in second")
    for cell, word in ((old, "first"), (new, "second")):
        if not cell.usable:
            state = "diverged" if cell.diverged else "not done"
            return Change(size, magnitude, f"{state} in {word}")
    change = Change(size, magnitude, "", old.mean_val, new.mean_val)
    change = replace(change, test_too=sorted(old.test) != sorted(new.test))
    if sorted(old.val) == sorted(new.val):
        return replace(change, verdict="identical", half=0.0)
    if not spread.freedom:
        return replace(change, verdict="one seed")
    half = stats.half_width(spread, len(old.val), len(new.val))
    error = spread.deviation * math.sqrt(1 / len(old.val) + 1 / len(new.val))
    apart = new.mean_val - old.mean_val
    p = stats.t_tails(apart / error, spread.freedom) if error else 0.0
    return replace(change, half=half, p=p)


def _judged(change: Change, p: float) -> Change:
    if change.verdict:
        return change
    return replace(change, p=p, verdict="changed" if p < LEVEL else "within noise")


def table(
    found: Sequence[Change], notes: Sequence[str], metric: Metric = TOP1, every: bool = False
) -> render.Table:
    """A line per cell that a reader must know of, or per cell."""
    columns = list(found[0].size) if found else []
    rows = tuple(
        (
            *(render.number(value) for value in change.size.values()),
            render.number(change.magnitude),
            render.score(change.before, metric),
            render.score(change.after, metric),
            render.interval(change.after - change.before, change.half, metric, signed=True),
            render.p_value(change.p),
            change.verdict,
        )
        for change in found
        if every or change.told
    )
    both = [change for change in found if not math.isnan(change.before)]
    counts = [f"{sum(c.verdict == word for c in both):,} {word}" for word in _verdicts(both)]
    return render.Table(
        (*columns, "magnitude", "first", "second", "change", "p", "verdict"),
        rows,
        "Cells that differ between the two." if not every else "Every cell of the two.",
        (
            f"{len(both):,} cells compared: {', '.join(counts) or 'none'}; "
            f"{len(found) - len(both):,} cells are not in both, or not done in both. Test results "
            f"differ in {sum(change.test_too for change in both):,} cells.",
            f"{metric.words} on validation, mean over seeds; ± is half of a 95 % t interval with a "
            "standard deviation pooled over the size's cells in both; p: Holm over all cells.",
            *notes,
        ),
        name="comparison",
        strong="verdict",
    )


def _verdicts(found: Sequence[Change]) -> list[str]:
    return sorted({change.verdict for change in found})


def notes(before: pd.DataFrame, after: pd.DataFrame) -> list[str]:
    """How the two were made differently, and what is unfinished in each."""
    told = []
    for column in (name for name in MIXED if name in before.columns and name in after.columns):
        values = [
            ", ".join(sorted(map(str, frame[column].dropna().unique())))
            for frame in (before, after)
        ]
        if values[0] != values[1]:
            first, second = (flat(value) or "-" for value in values)
            told.append(f"{column}: {first} in the first, {second} in the second")
    for frame, word in ((before, "first"), (after, "second")):
        told += [f"{word}: {note}" for note in warnings(frame)]
    return told


def main(args: list[str]) -> int:
    """The command."""
    rest, options = split_options(args, OPTIONS)
    metric = METRICS[options["metric"]]
    other = [arg for arg in rest if not arg.startswith("grid=")]
    second = ",".join(options["with"])
    files = all(name.endswith(SUFFIXES) for name in options["with"])
    before = load(rest, options["rows"])
    after = load([], second) if files else load([f"grid={second}", *other], None)
    before, after = (selected(frame, options["where"]) for frame in (before, after))
    found = compare(before, after, options["by"], metric)
    shown = table(found, notes(before, after), metric, options["show"] == "all")
    print(render.show(shown, options["format"]))
    return 0


callable_module(__name__)
if __name__ == "__main__":
    command(main, __doc__)
