"""The best magnitude for each size: chosen on validation, reported on test.

A test number takes part in no choice. Cells with a diverged seed are shown and cannot win: the
mean of the seeds that survived would flatter them. Missing seeds are shown too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from analysis import stats
from harness.errors import UserError, nearest

if TYPE_CHECKING:
    import pandas as pd

SIZES = ("dataset", "family", "depth", "width", "sparsity", "dense_long", "policy", "precision")
"""Columns that tell sizes (and arms) apart where they vary."""
MIXED = ("code", "engine", "zero_stage", "world_size", "loader", "memory_format", "device", "torch")
"""Columns in which the rows of one table should agree."""
NONE = "none"


@dataclass(frozen=True)
class Cell:
    """All seeds of one magnitude at one size."""

    magnitude: float | str
    val: tuple[float, ...]  # top-1 of the seeds that are done
    test: tuple[float, ...]  # in the same order
    seeds: int  # that the grid asks for
    diverged: int

    @property
    def missing(self) -> int:
        """Seeds that are not finished."""
        return self.seeds - len(self.val) - self.diverged

    @property
    def mean_val(self) -> float:
        """Mean validation top-1."""
        return math.fsum(self.val) / len(self.val)

    @property
    def mean_test(self) -> float:
        """Mean test top-1."""
        return math.fsum(self.test) / len(self.test)


@dataclass(frozen=True)
class Best:
    """One line of the table. Accuracies are shares; `half` is of an interval, NaN with one seed."""

    size: dict[str, Any]
    cells: tuple[Cell, ...]
    params: float | None  # mean number of parameters that are not zero
    best: Cell | None  # none where no cell is finished
    ties: tuple[float | str, ...]
    test: float = math.nan
    test_half: float = math.nan
    gain: float = math.nan  # over `none`
    gain_half: float = math.nan
    spread: stats.Spread = field(default=stats.Spread(math.nan, 0))  # of test


def magnitude_key(magnitude: float | str) -> float:
    """Sorts `none` first."""
    return -1.0 if magnitude == NONE else float(magnitude)


def size_columns(frame: pd.DataFrame, by: Sequence[str] | None = None) -> list[str]:
    """The columns that sizes are told apart by: `by`, or every axis that varies."""
    if by is not None:
        for name in by:
            if name not in frame.columns:
                raise UserError(f"by: there is no column '{name}'{nearest(name, frame.columns)}")
        return list(by)
    from analysis.rows import COLUMNS

    axes = [*SIZES, *(name for name in frame.columns if name not in COLUMNS)]
    varied = [n for n in axes if n in frame.columns and frame[n].nunique(dropna=False) > 1]
    return varied or [name for name in ("width",) if name in frame.columns]


def best_per_size(frame: pd.DataFrame, by: Sequence[str] | None = None) -> list[Best]:
    """A line per size, in the order of the size columns."""
    columns = size_columns(frame, by)
    if not columns:
        return [_best({}, frame)]
    found = []
    for key, group in frame.groupby(columns, dropna=False, sort=True):
        values = key if isinstance(key, tuple) else (key,)
        found.append(_best(dict(zip(columns, values, strict=True)), group))
    return found


def _best(size: dict[str, Any], group: pd.DataFrame) -> Best:
    cells = []
    for magnitude in sorted(set(group["magnitude"]), key=magnitude_key):
        rows = group[group["magnitude"] == magnitude]
        done = rows[rows["state"] == "done"]
        cells.append(
            Cell(
                magnitude,
                tuple(done["val_top1"]),
                tuple(done["test_top1"]),
                len(rows),
                int((rows["state"] == "diverged").sum()),
            )
        )
    nonzero = list(group["params_nonzero"].dropna()) if "params_nonzero" in group else []
    params = math.fsum(nonzero) / len(nonzero) if nonzero else None
    running = {cell.magnitude: cell for cell in cells if cell.val and not cell.diverged}
    if not running:
        return Best(size, tuple(cells), params, None, ())
    best = max(running.values(), key=lambda cell: cell.mean_val)
    val_spread = stats.pooled([cell.val for cell in running.values()])
    tied = stats.ties({m: cell.val for m, cell in running.items()}, best.magnitude, val_spread)
    spread = stats.pooled([cell.test for cell in running.values()])
    none = running.get(NONE)
    return Best(
        size,
        tuple(cells),
        params,
        best,
        tuple(sorted(tied, key=magnitude_key)),  # type: ignore[arg-type]
        best.mean_test,
        stats.half_width(spread, len(best.test)),
        best.mean_test - none.mean_test if none else math.nan,
        stats.half_width(spread, len(best.test), len(none.test))
        if none and none is not best
        else math.nan,
        spread,
    )


def warnings(frame: pd.DataFrame) -> list[str]:
    """What a reader must know of these rows: unfinished, diverged, made in different ways."""
    found = []
    done = frame[frame["state"] == "done"]
    counts = frame["state"].value_counts()
    if len(done) < len(frame):
        rest = ", ".join(f"{n} {state}" for state, n in counts.items() if state != "done")
        found.append(f"{len(done)} of {len(frame)} trials are done ({rest})")
    for column in MIXED:
        if column in done.columns and done[column].nunique() > 1:
            values = ", ".join(sorted(map(str, done[column].dropna().unique())))
            found.append(f"the rows differ in {column}: {values}")
    if "flags" in done.columns:
        flagged = done["flags"].fillna("").ne("").sum()
        if flagged:
            found.append(f"{flagged} trials changed code, packages or machine along their path")
    return found
