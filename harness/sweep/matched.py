"""The best magnitude of a size, from the rows of an earlier sweep or from a table by hand.

A file of rows (`analysis.rows out=...`, CSV) has `val_top1`: the best magnitude of a size is the
one whose mean over seeds is highest on validation; those with a diverged seed cannot win. Lines of
different experiments, and a sweep that is not finished, are refused. A table by hand has one line
per size: `sparsity,magnitude`, and further columns that tell sizes apart.
"""

from __future__ import annotations

import csv
import functools
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.errors import UserError
from harness.schema import Magnitude, TrialConfig
from harness.sweep.axes import SHORT

PLAIN = {"schedule": "constant", "surplus": "none", "dense_long": ""}
"""Columns, and what a line has in them that was trained in the plain way."""
AXES = frozenset({*SHORT, "dataset", "precision"})
"""Columns, besides those with a dotted name, that tell experiments apart."""
SAME = 1e-6  # sparsities and widths closer than this are one


def best_magnitude(path: str, trial: TrialConfig, sparsity: float) -> Magnitude:
    """The best magnitude for `trial`'s model at `sparsity`.

    Raises:
        UserError: a file that is not there or no such table, or one that lacks the size.
    """
    try:
        file = Path(path).expanduser()
        modified = file.stat().st_mtime_ns
    except (OSError, RuntimeError, ValueError) as error:  # also no such user, a zero byte
        raise UserError(
            f"compress.magnitude_schedule: there is no table {path} (from {Path.cwd()}); "
            "python -m analysis.rows grid=NAME out=FOLDER writes one."
        ) from error
    lines = _lines(str(file), modified)
    size = size_of(trial)
    alike = [line for line in lines if all(agrees(line, name, v) for name, v in size.items())]
    fitting = [line for line in alike if abs(float(line["sparsity"]) - sparsity) < SAME]
    _refuse_mixtures(path, fitting)
    found = _best(path, fitting)
    if found is None:
        has = sorted({float(line["sparsity"]) for line in alike})
        said = ", ".join(f"{value:g}" for value in has) if has else "none at all"
        raise UserError(
            f"compress.magnitude_schedule: the table {path} lacks sparsity {sparsity:g} of "
            f"{trial.model.family} depth {trial.model.depth}, width {trial.model.width:g} on "
            f"{trial.dataset.name} with {trial.augment.policy} (it has for it: {said}); "
            "sweep the magnitudes of that size first."
        )
    return found


def size_of(trial: TrialConfig) -> dict[str, Any]:
    """What tells dense sizes apart, by the names of columns."""
    return {
        "dataset": trial.dataset.name,
        "family": trial.model.family,
        "depth": trial.model.depth,
        "width": trial.model.width,
        "policy": trial.augment.policy,
    }


@functools.lru_cache(maxsize=8)
def _lines(path: str, modified: int) -> list[dict[str, str]]:
    try:
        with Path(path).open(newline="") as file:
            lines = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"the table {path} cannot be read: {error}.") from error
    for column in ("sparsity", "magnitude"):
        if not lines or column not in lines[0]:
            raise UserError(f"the table {path} has no column `{column}`, or no line.")
    plain = [line for line in lines if all(agrees(line, n, v) for n, v in PLAIN.items())]
    for line in plain:
        try:
            valid = line["magnitude"] == "none" or 0.0 <= float(line["magnitude"]) <= 1.0
            valid = valid and 0.0 <= float(line["sparsity"]) < 1.0
        except (TypeError, ValueError):
            valid = False
        if not valid:
            raise UserError(
                f"the table {path} has a line with sparsity {line['sparsity']!r} and magnitude "
                f"{line['magnitude']!r}: write a share, and none or a number from 0 to 1."
            )
    return plain


def agrees(line: Mapping[str, Any], name: str, value: object) -> bool:
    """Whether a line is about this value; an absent column says nothing."""
    said = line.get(name)
    if said is None or (said == "" and value in (None, "", *PLAIN.values())):
        return True
    if isinstance(value, int | float):
        try:
            return math.isclose(float(said), value, abs_tol=SAME)
        except ValueError:
            return False
    return bool(said == value)


def _refuse_mixtures(path: str, lines: list[dict[str, str]]) -> None:
    """Raise UserError where lines of one size are no replicates, or not all there yet."""
    for name in lines[0] if lines else ():
        axis = name in AXES or "." in (name or "")
        values = sorted({line.get(name) or "" for line in lines}) if axis else []
        if len(values) > 1 and name not in ("sparsity", "magnitude", "seed"):
            raise UserError(
                f"the table {path} has lines of one size that differ in `{name}` "
                f"({', '.join(map(repr, values[:5]))}): leave the lines of one experiment in it."
            )
    seen: set[tuple[str, str]] = set()
    for line in lines:
        state = line.get("state", "done")
        if state not in ("done", "diverged"):
            raise UserError(
                f"the table {path} has a cell of sparsity {line['sparsity']} at magnitude "
                f"{line['magnitude']} that is {state}: finish that sweep, and write its rows again."
            )
        cell = line["magnitude"], line.get("seed", "")
        if cell in seen and cell[1]:
            raise UserError(
                f"the table {path} has two lines of sparsity {line['sparsity']}, magnitude "
                f"{cell[0]} and seed {cell[1]}: take one out."
            )
        seen.add(cell)


def _best(path: str, lines: list[dict[str, str]]) -> Magnitude | None:
    """Highest mean of validation; without such a column, the only magnitude there is."""
    diverged = {line["magnitude"] for line in lines if line.get("state") == "diverged"}
    seeds: dict[str, list[float]] = {}
    for line in lines:
        if line["magnitude"] not in diverged:
            seeds.setdefault(line["magnitude"], []).append(_accuracy(path, line))
    means = {magnitude: sum(scores) / len(scores) for magnitude, scores in seeds.items()}
    if len(means) > 1 and any(map(math.isnan, means.values())):
        raise UserError(
            f"the table {path} has several magnitudes for one size, and not always a `val_top1` to "
            "choose by: write rows (python -m analysis.rows), or one line per size."
        )
    if not means:
        return None
    best = max(means, key=lambda magnitude: means[magnitude])
    return "none" if best == "none" else float(best)


def _accuracy(path: str, line: Mapping[str, str]) -> float:
    """On validation, a share; NaN where the table has none."""
    said = line.get("val_top1") or "nan"
    try:
        value = float(said)
    except ValueError:
        value = math.inf
    if not math.isnan(value) and not 0.0 <= value <= 1.0:
        raise UserError(
            f"the table {path} has the `val_top1` {said!r} at sparsity {line['sparsity']} and "
            f"magnitude {line['magnitude']}: write a share from 0 to 1."
        )
    return value
