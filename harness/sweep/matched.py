"""The best magnitude of a size, from the rows of an earlier sweep or from a table by hand.

In a CSV file of rows (`python -m analysis.rows grid=NAME out=FOLDER`) the best magnitude of a size
is the one whose mean `val_top1` over seeds is highest. A magnitude with a diverged seed cannot be
best. Rows of different experiments, and rows of a sweep that is not finished, are refused. A table
by hand has one row per size: `sparsity,magnitude`, and further columns that distinguish sizes.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any

from harness.errors import UserError
from harness.schema import Magnitude, TrialConfig, canonical
from harness.states import FINISHED
from harness.sweep.axes import SHORT
from harness.sweep.tables import (
    PLAIN,
    TOLERANCE,
    modification_time,
    read_rows,
    row_matches,
    size_columns,
    table_path,
)

KEY = "compress.magnitude_schedule"
AXES = frozenset({*SHORT, "dataset", "precision"})
"""Columns that distinguish experiments; those with a dotted name do as well."""
MAY_DIFFER = ("sparsity", "magnitude", "seed")


def best_magnitude(path: str, trial: TrialConfig, sparsity: float) -> Magnitude:
    """Return the best magnitude for `trial`'s model at `sparsity`.

    Raises:
        UserError: a file that cannot be read, is not such a table, or lacks the size.
    """
    path = table_path(path)
    size = tuple(size_columns(trial).items())
    return _best_of_size(path, modification_time(path), size, sparsity)


@functools.lru_cache(maxsize=10_000)
def _best_of_size(
    path: str, modified: int | None, size: tuple[tuple[str, Any], ...], sparsity: float
) -> Magnitude:
    """Return the best magnitude of a size.

    A grid looks up the same few sizes for each of its trials, and a table may have 10,000 rows. So
    results are kept, until the file is modified.
    """
    rows = _plain_rows(path)
    of_size = [row for row in rows if row_matches(row, dict(size))]
    candidates = [row for row in of_size if abs(float(row["sparsity"]) - sparsity) < TOLERANCE]
    _refuse_mixtures(path, candidates)
    best = _best(path, candidates)
    if best is None:
        values = dict(size)
        sparsities = sorted({float(row["sparsity"]) for row in of_size})
        listed = ", ".join(f"{value:g}" for value in sparsities) or "none"
        raise UserError(
            f"{KEY}: the table {path} lacks sparsity {sparsity:g} of {values['family']} depth "
            f"{values['depth']}, width {values['width']:g} on {values['dataset']} with "
            f"{values['policy']} (sparsities of this model in the table: {listed}). Sweep the "
            "magnitudes of that size first."
        )
    return best


def _plain_rows(path: str) -> list[dict[str, str]]:
    """Return the rows of trials that do nothing special, checked."""
    rows = read_rows(KEY, path, ["sparsity", "magnitude"])
    plain = [row for row in rows if row_matches(row, PLAIN)]
    for row in plain:
        try:
            is_valid = row["magnitude"] == "none" or 0.0 <= float(row["magnitude"]) <= 1.0
            is_valid = is_valid and 0.0 <= float(row["sparsity"]) < 1.0
        except (TypeError, ValueError):
            is_valid = False
        if not is_valid:
            raise UserError(
                f"{KEY}: the table {path} has a row with sparsity {row['sparsity']!r} and "
                f"magnitude {row['magnitude']!r}. A sparsity is a share below 1; a magnitude is "
                "none or a number from 0 to 1."
            )
    return plain


def _refuse_mixtures(path: str, rows: list[dict[str, str]]) -> None:
    """Raise UserError if rows of one size are not replicates, or are not all finished."""
    for name in rows[0] if rows else ():
        is_axis = name is not None and (name in AXES or "." in name) and name not in MAY_DIFFER
        values = sorted({row.get(name) or "" for row in rows}) if is_axis else []
        if len(values) > 1:
            raise UserError(
                f"{KEY}: the table {path} has rows of one size that differ in `{name}` "
                f"({', '.join(map(repr, values[:5]))}). Keep the rows of one experiment only."
            )
    cells: set[tuple[str, str]] = set()
    for row in rows:
        state = row.get("state", "done")
        if state not in FINISHED:
            raise UserError(
                f"{KEY}: the table {path} has a trial of sparsity {row['sparsity']} at magnitude "
                f"{row['magnitude']} that is {state}. Finish that sweep, and write its rows again."
            )
        cell = row["magnitude"], row.get("seed", "")
        if cell in cells and cell[1]:
            raise UserError(
                f"{KEY}: the table {path} has two rows of sparsity {row['sparsity']}, magnitude "
                f"{cell[0]} and seed {cell[1]}: take one out."
            )
        cells.add(cell)


def _best(path: str, rows: list[dict[str, str]]) -> Magnitude | None:
    """Return the magnitude with the highest mean on validation; without one, the only magnitude."""
    diverged = {row["magnitude"] for row in rows if row.get("state") == "diverged"}
    scores: dict[str, list[float]] = {}
    for row in rows:
        if row["magnitude"] not in diverged:
            scores.setdefault(row["magnitude"], []).append(_val_top1(path, row))
    means = {magnitude: sum(values) / len(values) for magnitude, values in scores.items()}
    if len(means) > 1 and any(map(math.isnan, means.values())):
        raise UserError(
            f"{KEY}: the table {path} has several magnitudes for one size, and rows without a "
            "`val_top1` to choose by. Write the table with python -m analysis.rows, or keep one "
            "row per size."
        )
    if not means:
        return None
    best = max(means, key=lambda magnitude: means[magnitude])
    return "none" if best == "none" else float(canonical(float(best)))


def _val_top1(path: str, row: Mapping[str, str]) -> float:
    """Return the accuracy on validation, a share; NaN where the table has none."""
    text = row.get("val_top1") or "nan"
    try:
        value = float(text)
    except ValueError:
        value = math.inf
    if not math.isnan(value) and not 0.0 <= value <= 1.0:
        raise UserError(
            f"{KEY}: the table {path} has the `val_top1` {text!r} at sparsity {row['sparsity']} "
            f"and magnitude {row['magnitude']}. It is a share from 0 to 1."
        )
    return value
