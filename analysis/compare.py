"""Two sweeps, or two versions of the code, cell by cell: which results changed by more than noise.

python -m analysis.compare rows=before.csv with=after.csv
python -m analysis.compare grid=quickstart with=quickstart_next show=all format=markdown
python -m analysis.compare rows=a.csv with=b.csv by=width where="sparsity == 0" metric=loss

Cells are compared on validation, so that a choice between the two costs no test number.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.cells import Cell, SizeKey, cells_per_size, magnitude_key, size_columns
from analysis.columns import AXES, TOP1, Metric, header_of, is_axis, on_one_line
from analysis.commands import (
    FORMAT,
    LABEL,
    ROW_OPTIONS,
    keys_in,
    load,
    read_request,
    selected,
    show,
    with_label,
)
from analysis.provenance import PROVENANCE, warnings
from analysis.render import (
    Column,
    Table,
    counted,
    format_interval,
    format_p,
    format_score,
    format_value,
    in_unit,
)
from harness import statistics as stats
from harness.arguments import Option
from harness.errors import UserError, command
from harness.states import RULED_OUT

OPTIONS = {
    **ROW_OPTIONS,
    "format": FORMAT,
    "label": LABEL,
    "with": Option(list, required=True, example="before.csv"),
    "show": Option(default="changed", choices=("changed", "all")),
}
GRID_SUFFIXES = ("", ".yaml", ".yml")  # of a name in `with`; all others are files of rows


@dataclass(frozen=True)
class Change:
    """A cell of both sweeps, or of one of them; numbers are NaN where they are unknown."""

    size: dict[str, Any]
    magnitude: float | str
    verdict: str  # changed, within noise, identical, one seed, only in first, not done in second...
    before: float = math.nan  # mean on validation
    after: float = math.nan
    half: float = math.nan  # half-width of the 95 % interval of the change
    p: float = math.nan  # adjusted by Holm over all cells
    test_differs: bool = False  # whether test results differ; their values stay unseen

    @property
    def is_notable(self) -> bool:
        """Whether the table lists the cell even without `show=all`."""
        return self.verdict not in ("within noise", "identical")


def compare(
    before: pd.DataFrame,
    after: pd.DataFrame,
    by: Sequence[str] | None = None,
    metric: Metric = TOP1,
) -> list[Change]:
    """Return the change of every cell of either sweep, in order of sizes and magnitudes.

    The spreads are those of the cells of one size in both sweeps (pooled over all cells where a
    size has one seed each), runs count as independent, p-values are Holm's over all cells compared.
    """
    columns = _shared_size_columns(before, after, by)
    sides: list[dict[SizeKey, tuple[Cell, ...]]] = [
        {tuple(size.values()): cells for size, cells, _ in cells_per_size(frame, columns, metric)}
        for frame in (before, after)
    ]
    overall = stats.pooled(
        [cell.val for side in sides for cells in side.values() for cell in cells]
    )
    changes: list[Change] = []
    for key in dict.fromkeys([*sides[0], *sides[1]]):
        old, new = ({cell.magnitude: cell for cell in side.get(key, ())} for side in sides)
        spreads = stats.spreads(
            {(at, m): cell.val for at, side in enumerate((old, new)) for m, cell in side.items()}
        )
        size = dict(zip(columns, key, strict=True))
        for magnitude in sorted({*old, *new}, key=magnitude_key):
            pair = old.get(magnitude), new.get(magnitude)
            noise = [spreads.get((which, magnitude), overall) for which in range(2)]
            noise = [spread if spread.freedom else overall for spread in noise]
            changes.append(_change(size, magnitude, pair, noise))
    adjusted = stats.holm([change.p for change in changes])
    for at, (change, p) in enumerate(zip(changes, adjusted, strict=True)):
        if not change.verdict:
            verdict = "changed" if p < stats.ALPHA else "within noise"
            changes[at] = replace(change, p=p, verdict=verdict)
    return changes


def _shared_size_columns(
    before: pd.DataFrame, after: pd.DataFrame, by: Sequence[str] | None
) -> list[str]:
    """Return what distinguishes sizes within either sweep or between them.

    Raises UserError where one of the sweeps lacks such a column.
    """
    if by is None:
        needed = {*AXES, "grid", "magnitude", "seed", "state"}  # copying the rest would take long
        shared = [n for n in before.columns if n in after.columns and (n in needed or is_axis(n))]
        both = pd.concat([before[shared].astype(object), after[shared].astype(object)])
        columns = [*size_columns(before), *size_columns(after), *size_columns(both)]
        by = [name for name in columns if name != "grid"]
    for frame, which in ((before, "first"), (after, "second")):
        for name in by:
            if name not in frame.columns:
                raise UserError(
                    f"the {which} rows have no column '{name}', which distinguishes sizes: name "
                    "columns that both have with by="
                )
    return list(dict.fromkeys(by))


def _change(
    size: dict[str, Any],
    magnitude: float | str,
    pair: tuple[Cell | None, Cell | None],
    spreads: Sequence[stats.Spread],
) -> Change:
    """Return the change of a cell with its uncorrected p-value; the verdict is empty if p decides.

    `pair` is the cell before and after, None where a sweep lacks it; `spreads` are theirs.
    """
    old, new = pair
    if old is None or new is None:
        return Change(size, magnitude, "only in first" if old else "only in second")
    for cell, which in ((old, "first"), (new, "second")):
        if not cell.is_usable:
            state = "diverged" if cell.diverged else "not done"
            state = RULED_OUT if cell.is_ruled_out else state
            return Change(size, magnitude, f"{state} in {which}")
    test_differs = sorted(old.test) != sorted(new.test)
    change = Change(size, magnitude, "", old.mean_val, new.mean_val, test_differs=test_differs)
    if sorted(old.val) == sorted(new.val):
        return replace(change, verdict="identical", half=0.0)
    estimate = stats.difference(new.val, spreads[1], old.val, spreads[0])
    if not estimate.freedom:
        return replace(change, verdict="one seed")
    return replace(change, half=estimate.half, p=estimate.p)


def comparison_table(
    changes: Sequence[Change], notes: Sequence[str], metric: Metric = TOP1, every: bool = False
) -> Table:
    """Return the table of the notable cells, or of `every` cell."""
    shown = [change for change in changes if every or change.is_notable]
    names = list(changes[0].size) if changes else []

    def column(header: str, cells: Iterable[str], numbers: dict[str, list[Any]]) -> Column:
        return Column(header, header, list(cells), numbers)

    def score(header: str, values: list[float]) -> Column:
        numbers = {header: [in_unit(value, metric) for value in values]}
        return column(header, (format_score(value, metric) for value in values), numbers)

    def words(name: str, values: list[Any]) -> Column:
        return column(header_of(name), map(format_value, values), {name: values})

    differences = [(change.after - change.before, change.half) for change in shown]
    columns = [
        *(words(name, [change.size[name] for change in shown]) for name in names),
        words("magnitude", [change.magnitude for change in shown]),
        score("first", [change.before for change in shown]),
        score("second", [change.after for change in shown]),
        column(
            "change",
            (format_interval(*difference, metric, signed=True) for difference in differences),
            {
                "change": [in_unit(value, metric) for value, _ in differences],
                "change_half": [in_unit(half, metric) for _, half in differences],
            },
        ),
        column("p", (format_p(change.p) for change in shown), {"p": [c.p for c in shown]}),
        words("verdict", [change.verdict for change in shown]),
    ]
    compared = [change for change in changes if not math.isnan(change.before)]
    verdicts = Counter(change.verdict for change in compared)
    counts = ", ".join(f"{verdicts[name]:,} {name}" for name in sorted(verdicts)) or "none"
    return Table.of(
        columns,
        columns,
        caption="Every cell of the two." if every else "Cells that differ between the two.",
        notes=(
            f"{counted(len(compared), 'cell')} compared: {counts}; not in both, or not done in "
            f"both: {counted(len(changes) - len(compared), 'cell')}. Test results differ in "
            f"{counted(sum(change.test_differs for change in compared), 'cell')}.",
            f"{metric.words} on validation, mean over seeds; ± is half of a 95 % t interval with a "
            "standard deviation pooled over the size's cells in both; p: Holm over all cells.",
            *notes,
        ),
        name="comparison",
        strong="verdict",
    )


def notes(before: pd.DataFrame, after: pd.DataFrame) -> list[str]:
    """Return how the two were made differently, and what is unfinished in each."""
    messages = []
    for column in PROVENANCE:
        if column in before.columns and column in after.columns:
            first, second = (
                ", ".join(sorted(map(str, frame[column].dropna().unique())))
                for frame in (before, after)
            )
            if first != second:
                first, second = (on_one_line(values) or "-" for values in (first, second))
                messages.append(f"{column}: {first} in the first, {second} in the second")
    for frame, which in ((before, "first"), (after, "second")):
        messages += [f"{which}: {message}" for message in warnings(frame)]
    return messages


def main(args: list[str]) -> int:
    """Print the table of changes."""
    request = read_request(args, OPTIONS)
    options, before = request.options, request.frame
    if not any(Path(name).suffix in GRID_SUFFIXES for name in options["with"]):
        after = load([], options["with"])
    else:
        overrides = [arg for arg in request.overrides if not arg.startswith("grid=")]
        keys = keys_in(options["where"], options["by"])
        after = load([f"grid={','.join(options['with'])}", *overrides], options=OPTIONS, keys=keys)
    after = selected(after, options["where"])
    changes = compare(before, after, request.by, request.metric)
    every = options["show"] == "all"
    table = comparison_table(changes, notes(before, after), request.metric, every)
    print(show(with_label(table, before, options["label"]), options["format"]))
    return 0


if __name__ == "__main__":
    command(main, __doc__)
