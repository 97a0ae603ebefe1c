"""The check that a table can be used as rows: columns, types, ranges; all mistakes at once."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.columns import NONE, RANGES, REQUIRED, SCORES, is_missing, on_one_line
from harness.errors import UserError, nearest
from harness.states import STATES

DECIMAL = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)


def check(frame: pd.DataFrame, name: str) -> pd.DataFrame:
    """Return the rows with their types. Raises a UserError that lists every mistake in them.

    `name` says in the error where the rows come from.
    """
    columns = [on_one_line(str(column)) for column in frame.columns]
    problems = [
        f"column '{column}' is missing{nearest(column, columns)}"
        for column in REQUIRED
        if column not in columns
    ]
    if len(problems) == len(REQUIRED):
        first = ", ".join(columns[:5]) or "none"
        problems = [f"it has none of the columns {', '.join(REQUIRED)} (its first ones: {first})"]
    problems += [
        f"column '{column}' is there twice: remove or rename one of them"
        for column in sorted(_repeated(columns))
    ]
    if not problems and frame.empty:
        problems.append("it has no rows")
    _raise_if_any(problems, name)  # the checks below need the columns
    frame = frame.set_axis(columns, axis=1).reset_index(drop=True)
    unknown = sorted(set(frame["state"].dropna().map(str)) - set(STATES))
    if frame["state"].isna().any():
        problems.append(f"state: a row has no state{nearest('', STATES)}")
    if unknown:
        problems.append(f"state '{unknown[0]}' is not known{nearest(unknown[0], STATES)}")
    for column in RANGES:
        if column in columns and (problem := _convert_to_numbers(frame, column)):
            problems.append(f"{column}: {problem}")
    problems += _convert_magnitudes(frame)
    for column in frame.columns.difference(["magnitude", *RANGES]):
        if _needs_conversion(frame[column]):
            texts = [None if is_missing(value) else _text(value) for value in frame[column]]
            frame[column] = pd.Series(texts, index=frame.index, dtype=object)
    if "trial" in columns:
        repeated = frame[frame.duplicated("trial", keep=False) & frame["trial"].notna()]
        if len(repeated):
            problems.append(
                f"trial {repeated['trial'].iloc[0]} is there twice; to read several files write "
                "rows=A,B"
            )
    unscored = frame[(frame["state"] == "done") & frame[list(SCORES)].isna().any(axis=1)]
    if len(unscored):
        problems.append(f"{len(unscored)} rows are done but have no accuracy")
    _raise_if_any(problems, name)
    return frame


def _raise_if_any(problems: Sequence[str], name: str) -> None:
    if problems:
        lines = [f"{name} cannot be used as rows:", *map(on_one_line, problems)]
        raise UserError("\n  ".join(lines))


def _needs_conversion(column: pd.Series) -> bool:
    """Return whether a column may have values other than texts, or texts with carriage returns."""
    if isinstance(column.dtype, pd.StringDtype):
        return bool(column.str.contains("\r", regex=False, na=False).any())
    return not pd.api.types.is_numeric_dtype(column)


def _text(value: Any) -> str:
    """Return the value as text, because lists cannot be keys of a group.

    pandas reads lists in Parquet as arrays. Carriage returns become line feeds, because readers of
    CSV would take them for the end of a row.
    """
    text = str(value.tolist() if isinstance(value, np.ndarray) else value)
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _repeated(names: Sequence[str]) -> set[str]:
    """Return the names that occur more than once.

    pandas changes the name of a second column `seed` in a CSV to `seed.1`.
    """
    unique = set(names)
    repeated = {name for name in unique if names.count(name) > 1}
    renamed = {name[:-2] for name in unique if name.endswith(".1") and name[:-2] in unique}
    return repeated | renamed


def _convert_to_numbers(frame: pd.DataFrame, column: str) -> str:
    """Make a column of `frame` numeric; return what is wrong with it, empty if nothing is."""
    values, valid = frame[column], RANGES[column]
    if pd.api.types.is_bool_dtype(values):
        return f"{values.iloc[0]} is not a number"
    try:
        frame[column] = numbers = pd.to_numeric(values, errors="coerce")
    except OverflowError:
        return "a number has more than 308 digits"
    missing = numbers.isna()
    unreadable = [v for v in values[missing & values.notna()] if str(v) != "nan"]  # or lists
    if unreadable:
        return f"{unreadable[0]!r} is not a number"
    if column == "seed" and missing.any():
        return "a row has no seed"
    is_valid = numbers.between(0, valid.highest, inclusive=valid.inclusive)
    if column == "seed":
        is_valid &= numbers % 1 == 0
    wrong = numbers[~missing & ~is_valid]
    if wrong.empty:
        return ""
    is_percentage = valid.highest < wrong.max() <= 100
    advice = ", so divide percentages by 100" if is_percentage else ""
    return f"{wrong.iloc[0]:g} is {valid.otherwise}{advice}"


def _convert_magnitudes(frame: pd.DataFrame) -> list[str]:
    """Turn the magnitudes of `frame` into numbers and `none`; return the first mistake."""
    if frame["magnitude"].isna().any():
        return ["magnitude: a row has no magnitude; without augmentation it is `none`"]
    texts = [str(value).strip() for value in frame["magnitude"].tolist()]
    parsed = {text: _parse_magnitude(text) for text in sorted(set(texts))}
    values = [parsed[text] for text in texts]
    frame["magnitude"] = pd.Series(values, index=frame.index, dtype=object)
    invalid = [text for text, magnitude in parsed.items() if magnitude is None]
    return [
        f"magnitude: '{text}' is neither `none` nor a number from 0 to 1" for text in invalid[:1]
    ]


def _parse_magnitude(text: str) -> float | str | None:
    """Return `none` or a share in [0, 1]; None for any other text."""
    if text == NONE:
        return text
    if not DECIMAL.fullmatch(text):
        return None
    # 0.30000000000000004 and 0.3 are one magnitude; -0.0 becomes 0.0
    number = float(f"{float(text):.12g}") + 0.0
    return number if 0.0 <= number <= 1.0 else None
