"""Tables of sizes: CSV files with the best magnitude, or the teacher's target, of each size.

`matched:FILE` names rows of an earlier sweep (`python -m analysis.rows grid=NAME out=FOLDER`) or a
table by hand. Of rows, the best magnitude of a size is the one whose mean `val_top1` over seeds is
highest. A magnitude with a diverged seed cannot be best. Rows of different experiments, and rows of
a sweep that is not finished, are refused. A table by hand has one row per size:
`sparsity,magnitude`, and further columns that distinguish sizes.

`teacher.target_table` names a table with a column `target` (the teacher's loss, in nats), any of
the columns of a size, and one row for each size.
"""

from __future__ import annotations

import contextlib
import csv
import functools
import hashlib
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.errors import UserError
from harness.fields import canonical
from harness.files import user_path
from harness.plain_yaml import read_text, remember_tables, table_files
from harness.schema import Magnitude, TeacherConfig, TrialConfig
from harness.states import FINISHED
from harness.sweep.axes import SHORT

AXES = frozenset({*SHORT, "dataset", "precision"})
"""Columns that distinguish experiments; those with a dotted name do as well."""
MAY_DIFFER = ("sparsity", "magnitude", "seed")
PLAIN = {"schedule": "constant", "surplus": "none", "dense_long": ""}
"""Columns in which experiments differ, and the value of a trial that does nothing special."""
LONGEST = 1 << 27  # bytes of a table
TOLERANCE = 1e-6  # sparsities and widths closer than this are equal


@contextlib.contextmanager
def _mistakes_at(key: str) -> Iterator[None]:
    """Begin the message of a UserError with the key that names the table."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{key}: {error}") from error


def without_folder(path: str, folder: Path) -> str:
    """Return the file name of a table with the hash of its content: `rows.csv@1f0c2a9b`.

    The table is looked up in `folder`, then from the current directory. The path of a table that
    cannot be read is returned as it is.
    """
    with contextlib.suppress(OSError, UserError, ValueError):
        beside = folder / path
        file = beside if beside.exists() else user_path(path, "table")
        name = f"{file.name}@{_hash(file, file.stat().st_mtime_ns)}"
        remember_tables([file])
        return name
    return path


@functools.lru_cache(maxsize=100)
def _hash(file: Path, modified: int) -> str:
    """Return the hash of a table that was last modified at that time."""
    return hashlib.sha256(read_text(file, "table", LONGEST).encode()).hexdigest()[:8]


def _table_path(name: str) -> str:
    """Return the path of a table that is named by its path, or by its file name and hash."""
    file_name, _, digest = name.rpartition("@")
    for file in table_files() if file_name else ():
        with contextlib.suppress(OSError, UserError):
            if file.name == file_name and _hash(file, file.stat().st_mtime_ns) == digest:
                return str(file)
    return name


def _modification_time(path: str) -> int | None:
    """Return when a file was last modified, in nanoseconds, or None if there is no such file."""
    try:
        return Path(path).expanduser().stat().st_mtime_ns
    except (OSError, RuntimeError, ValueError):  # also: no such user, a zero byte in the name
        return None


def _read_rows(path: str, columns: Sequence[str]) -> list[dict[str, str]]:
    """Return the rows of a CSV file, as texts by column.

    Raises:
        UserError: no such file, or one that is not a table, has no row, or lacks one of `columns`.
    """
    try:
        text = read_text(user_path(path, "table"), "table", LONGEST)
        separator = max(",;\t", key=text.partition("\n")[0].count)
        rows = list(csv.DictReader(io.StringIO(text, newline=""), delimiter=separator))
    except csv.Error as error:
        raise UserError(f"the table {path} cannot be read: {error}.") from error
    for column in columns:
        if not rows or column not in rows[0]:
            raise UserError(f"the table {path} has no column `{column}`, or no row.")
    return rows


def _size_columns(trial: TrialConfig) -> dict[str, Any]:
    """Return what distinguishes a trial's dense model from others, by column."""
    return {
        "dataset": trial.dataset.name,
        "family": trial.model.family,
        "depth": trial.model.depth,
        "width": trial.model.width,
        "policy": trial.augment.policy,
    }


def _row_matches(row: Mapping[str, str], values: Mapping[str, Any]) -> bool:
    """Return whether a row has these values in every column that the table has."""
    return all(_cell_matches(row.get(column), value) for column, value in values.items())


def _cell_matches(text: str | None, value: object) -> bool:
    if text is None or (text == "" and value in (None, "", *PLAIN.values())):
        return True
    if isinstance(value, int | float):
        try:
            return math.isclose(float(text), value, abs_tol=TOLERANCE)
        except ValueError:
            return False
    return text == value


# --- the best magnitude of a size --------------------------------------------------------------


def best_magnitude(path: str, trial: TrialConfig, sparsity: float) -> Magnitude:
    """Return the best magnitude for `trial`'s model at `sparsity`.

    Raises:
        UserError: a file that cannot be read, is not such a table, or lacks the size.
    """
    path = _table_path(path)
    size = tuple(_size_columns(trial).items())
    with _mistakes_at("compress.magnitude_schedule"):
        return _best_of_size(path, _modification_time(path), size, sparsity)


@functools.lru_cache(maxsize=10_000)
def _best_of_size(
    path: str, modified: int | None, size: tuple[tuple[str, Any], ...], sparsity: float
) -> Magnitude:
    """Return the best magnitude of a size.

    A grid looks up the same few sizes for each of its trials, and a table may have 10,000 rows. So
    results are kept, until the file is modified.
    """
    rows = _plain_rows(path)
    of_size = [row for row in rows if _row_matches(row, dict(size))]
    candidates = [row for row in of_size if abs(float(row["sparsity"]) - sparsity) < TOLERANCE]
    _refuse_mixtures(path, candidates)
    best = _best(path, candidates)
    if best is None:
        values = dict(size)
        sparsities = sorted({float(row["sparsity"]) for row in of_size})
        listed = ", ".join(f"{value:g}" for value in sparsities) or "none"
        raise UserError(
            f"the table {path} lacks sparsity {sparsity:g} of {values['family']} depth "
            f"{values['depth']}, width {values['width']:g} on {values['dataset']} with "
            f"{values['policy']} (sparsities of this model in the table: {listed}). Sweep the "
            "magnitudes of that size first."
        )
    return best


def _plain_rows(path: str) -> list[dict[str, str]]:
    """Return the rows of trials that do nothing special, checked."""
    rows = _read_rows(path, ["sparsity", "magnitude"])
    plain = [row for row in rows if _row_matches(row, PLAIN)]
    for row in plain:
        try:
            is_valid = row["magnitude"] == "none" or 0.0 <= float(row["magnitude"]) <= 1.0
            is_valid = is_valid and 0.0 <= float(row["sparsity"]) < 1.0
        except (TypeError, ValueError):
            is_valid = False
        if not is_valid:
            raise UserError(
                f"the table {path} has a row with sparsity {row['sparsity']!r} and "
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
                f"the table {path} has rows of one size that differ in `{name}` "
                f"({', '.join(map(repr, values[:5]))}). Keep the rows of one experiment only."
            )
    cells: set[tuple[str, str]] = set()
    for row in rows:
        state = row.get("state", "done")
        if state not in FINISHED:
            raise UserError(
                f"the table {path} has a trial of sparsity {row['sparsity']} at magnitude "
                f"{row['magnitude']} that is {state}. Finish that sweep, and write its rows again."
            )
        cell = row["magnitude"], row.get("seed", "")
        if cell in cells and cell[1]:
            raise UserError(
                f"the table {path} has two rows of sparsity {row['sparsity']}, magnitude "
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
            f"the table {path} has several magnitudes for one size, and rows without a "
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
            f"the table {path} has the `val_top1` {text!r} at sparsity {row['sparsity']} "
            f"and magnitude {row['magnitude']}. It is a share from 0 to 1."
        )
    return value


# --- the target of a size ------------------------------------------------------------------------


def with_target(trial: TrialConfig) -> TeacherConfig:
    """Return the trial's teacher, with the target that its table has for the trial's size.

    Raises:
        UserError: a table that cannot be read, or that does not have one target for the size.
    """
    if trial.teacher.target_table is None:
        return trial.teacher
    with _mistakes_at("teacher.target_table"):
        target = _target_of_size(_table_path(trial.teacher.target_table), trial)
    return trial.teacher.model_copy(update={"target": target, "target_table": None})


def _target_of_size(path: str, trial: TrialConfig) -> float:
    size = {**_size_columns(trial), "sparsity": trial.compress.sparsity}
    rows = _read_rows(path, ["target"])
    targets = [(_target_of(path, row["target"]), _row_matches(row, size)) for row in rows]
    of_size = {target for target, matches in targets if matches}
    if len(of_size) != 1:
        words = ", ".join(f"{name} {value}" for name, value in size.items() if value is not None)
        problem = f"has several targets for {words}" if of_size else f"lacks {words}"
        raise UserError(f"the table {path} {problem}; give it one row for each size.")
    return of_size.pop()


def _target_of(path: str, text: str | None) -> float:
    try:
        target = float(canonical(float(text or "")))
    except ValueError:
        target = math.nan
    if not 0.0 <= target < math.inf:
        raise UserError(
            f"the table {path} has the target {text!r}, which is not a loss of 0 or more."
        )
    return target
