"""What a table must be to pass for rows: columns, types, ranges; all mistakes listed at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.errors import UserError, nearest

if TYPE_CHECKING:
    import pandas as pd

REQUIRED = ("state", "magnitude", "seed", "val_top1", "test_top1")
SCORES = ("val_top1", "test_top1")
SHARES = ("sparsity", "dense_long")  # in [0, 1)
COUNTS = (
    "params_total", "params_nonzero", "params_prunable", "macs_dense", "macs_nonzero", "epochs",
    "examples", "train_macs", "gpu_seconds", "estimated_seconds",
)  # fmt: skip
NUMBERS = (*SCORES, *SHARES, *COUNTS, "val_loss", "test_loss", "seed", "difficulty")
STATES = ("done", "diverged", "failed", "damaged", "disputed", "running", "queued", "waiting")


def check(frame: pd.DataFrame, name: str) -> pd.DataFrame:
    """The rows with their types, or a UserError about every mistake in them."""
    import pandas as pd

    columns = [flat(str(column)) for column in frame.columns]
    problems = [
        f"column '{column}' is missing{nearest(column, columns)}"
        for column in REQUIRED
        if column not in columns
    ]
    problems += [f"column '{column}' is there twice" for column in sorted(_twice(columns))]
    if not problems and frame.empty:
        problems.append("it holds no row")
    _raise(problems, name)
    frame = frame.set_axis(columns, axis=1).reset_index(drop=True)
    unknown = sorted(set(frame["state"].astype(str)) - set(STATES))
    if unknown:
        problems.append(f"state '{unknown[0]}' is not known{nearest(unknown[0], STATES)}")
    for column in NUMBERS:
        if column in columns:
            problems += _numbers(frame, column)
    texts = [str(value).strip() for value in frame["magnitude"].tolist()]
    written = {text: _magnitude(text) for text in sorted(set(texts))}
    for text in [text for text, known in written.items() if known is None][:1]:
        problems.append(f"magnitude: '{text}' is neither `none` nor a number from 0 to 1")
    frame["magnitude"] = pd.Series([written[t] for t in texts], index=frame.index, dtype=object)
    for column in frame.columns.difference(["magnitude", *NUMBERS]):
        if pd.api.types.is_object_dtype(frame[column]):  # lists, say: no key of a group
            plain = [None if _absent(value) else str(value) for value in frame[column]]
            frame[column] = pd.Series(plain, index=frame.index, dtype=object)
    if "trial" in columns:
        again = frame[frame.duplicated("trial", keep=False) & frame["trial"].notna()]
        if len(again):
            problems.append(
                f"trial {again['trial'].iloc[0]} is there twice; several files go as rows=A,B"
            )
    lacking = frame[(frame["state"] == "done") & frame[list(SCORES)].isna().any(axis=1)]
    if len(lacking):
        problems.append(f"{len(lacking)} rows are done and have no accuracy")
    _raise(problems, name)
    return frame


def flat(text: str) -> str:
    """Text of one line, in which a terminal finds no command."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _raise(problems: Sequence[str], name: str) -> None:
    if problems:
        raise UserError("\n  ".join([f"{name} cannot be used as rows:", *map(flat, problems)]))


def _twice(names: Sequence[str]) -> set[str]:
    """Names that occur again; pandas calls the second `seed` of a CSV `seed.1`."""
    known = set(names)
    again = {name for name in known if names.count(name) > 1}
    return again | {name[:-2] for name in known if name.endswith(".1") and name[:-2] in known}


def _numbers(frame: pd.DataFrame, column: str) -> list[str]:
    """Make a column of `frame` numeric; what is wrong with it."""
    import pandas as pd

    given = frame[column]
    frame[column] = found = pd.to_numeric(given, errors="coerce")
    unknown = found.isna()
    if unknown.any():
        bad = given[unknown & given.notna()]
        bad = bad[bad.astype(str) != "nan"]
        if len(bad):
            return [f"{column}: {bad.iloc[0]!r} is no number"]
    if column == "seed" and unknown.any():
        return [f"{column}: a row has none"]
    wrong, valid = found[:0], ""
    if column in SCORES:
        wrong, valid = found[(found < 0) | (found > 1)], "outside [0, 1]; accuracies are shares"
    elif column in SHARES:
        wrong, valid = found[(found < 0) | (found >= 1)], "outside [0, 1); it is a share"
    elif column in COUNTS:
        wrong, valid = found[(found < 0) | (found == math.inf)], "no count"
    elif column in ("seed", "difficulty"):
        wrong, valid = found[found.abs() == math.inf], "not finite"
    if wrong.empty:
        return []
    shares = "share" in valid and 1 < wrong.max() <= 100
    percent = ", so divide percentages by 100" if shares else ""
    return [f"{column}: {wrong.iloc[0]:g} is {valid}{percent}"]


def _absent(value: object) -> bool:
    return value is None or (isinstance(value, float) and value != value)


def _magnitude(text: str) -> float | str | None:
    """`none`, or a share; None for what is neither."""
    if text == "none":
        return text
    try:
        number = float(text)
    except ValueError:
        return None
    return number if 0.0 <= number <= 1.0 else None
