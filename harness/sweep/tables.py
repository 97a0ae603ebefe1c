"""Reads tables of sizes: CSV files with the magnitudes or the teachers' targets of sizes."""

from __future__ import annotations

import contextlib
import csv
import functools
import hashlib
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.errors import UserError
from harness.files import user_path
from harness.plain_yaml import read_text
from harness.schema import TrialConfig
from harness.tables import remember_tables, table_files

PLAIN = {"schedule": "constant", "surplus": "none", "dense_long": ""}
"""Columns in which experiments differ, and the value of a trial that does nothing special."""
LONGEST = 1 << 27  # bytes of a table
TOLERANCE = 1e-6  # sparsities and widths closer than this are equal


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


def table_path(name: str) -> str:
    """Return the path of a table that is named by its path, or by its file name and hash."""
    file_name, _, digest = name.rpartition("@")
    for file in table_files() if file_name else ():
        with contextlib.suppress(OSError, UserError):
            if file.name == file_name and _hash(file, file.stat().st_mtime_ns) == digest:
                return str(file)
    return name


def modification_time(path: str) -> int | None:
    """Return when a file was last modified, in nanoseconds, or None if there is no such file."""
    try:
        return Path(path).expanduser().stat().st_mtime_ns
    except (OSError, RuntimeError, ValueError):  # also: no such user, a zero byte in the name
        return None


def read_rows(key: str, path: str, columns: Sequence[str]) -> list[dict[str, str]]:
    """Return the rows of a CSV file, as texts by column.

    Raises:
        UserError: beginning with the config's `key`; no such file, or one that is not a table, has
            no row, or lacks one of `columns`.
    """
    try:
        text = read_text(user_path(path, key), "table", LONGEST)
        rows = list(csv.DictReader(io.StringIO(text, newline="")))
    except csv.Error as error:
        raise UserError(f"{key}: the table {path} cannot be read: {error}.") from error
    except UserError as error:
        raise UserError(f"{key}: {error}.") from error
    for column in columns:
        if not rows or column not in rows[0]:
            raise UserError(f"{key}: the table {path} has no column `{column}`, or no row.")
    return rows


def size_columns(trial: TrialConfig) -> dict[str, Any]:
    """Return what distinguishes a trial's dense model from others, by column."""
    return {
        "dataset": trial.dataset.name,
        "family": trial.model.family,
        "depth": trial.model.depth,
        "width": trial.model.width,
        "policy": trial.augment.policy,
    }


def row_matches(row: Mapping[str, str], values: Mapping[str, Any]) -> bool:
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
