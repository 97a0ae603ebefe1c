"""Warnings about rows: trials that are unfinished, and trials that were made in different ways."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from analysis.cells import SizeKey, is_determined, planned, size_columns, size_keys
from analysis.columns import COLUMNS, is_axis, on_one_line, values_of
from analysis.render import counted, format_range, format_value
from harness.store.provenance import RECORDED

MOST_VALUES = 6  # of a column, named in a warning
PROVENANCE = ("split_hash", *(column for column in RECORDED if column != "split_hash"))
"""Columns in which the rows of one table should agree, the most important one first."""


def differing_columns(
    frame: pd.DataFrame, columns: Sequence[str]
) -> dict[SizeKey, tuple[str, ...]]:
    """Return for each size the provenance columns in which its finished rows differ.

    The flags of its trials follow. Sizes without differences are left out.
    """
    done = frame[frame["state"] == "done"]
    keys = size_keys(done, columns)
    words: dict[SizeKey, dict[str, None]] = {}
    for column in (name for name in PROVENANCE if _differs(done, name)):
        first: dict[SizeKey, object] = {}
        for key, value in zip(keys, values_of(done, column), strict=True):
            if first.setdefault(key, value) != value:
                words.setdefault(key, {})[column] = None
    for key, flags in zip(keys, values_of(done, "flags"), strict=True):
        if isinstance(flags, str) and flags:
            words.setdefault(key, {}).update(dict.fromkeys(flags.split(";")))
    return {key: tuple(names) for key, names in words.items()}


def _differs(done: pd.DataFrame, name: str) -> bool:
    if name not in done.columns:
        return False
    # each data set, and each share of one, has its own split
    parts = [n for n in ("dataset", "train_size") if name == "split_hash" and n in done.columns]
    return not is_determined(done, name, parts)


def setting(frame: pd.DataFrame) -> str:
    """Return what the trials have in common: `cifar10, resnet, depth 20, 90 epochs`."""
    done = frame[frame["state"] == "done"]
    frame = frame if done.empty else done
    parts = []
    for name in ("dataset", "family", "depth", "width", "sparsity", "policy"):
        if name not in frame.columns:
            continue
        values = frame[name].dropna().unique()
        if len(values) == 1 and values[0] != 0:
            word = "" if name in ("dataset", "family", "policy") else f"{name} "
            parts.append(word + format_value(values[0]))
    if "epochs" in frame.columns and frame["epochs"].notna().any():
        parts.append(f"{format_range(frame['epochs'].min(), frame['epochs'].max())} epochs")
    return ", ".join(parts)


def pooled_columns(frame: pd.DataFrame, by: Sequence[str] | None = None) -> dict[str, list[str]]:
    """Return the columns that nobody declared and that differ within a cell, with their values.

    Trials that differ in them count as seeds of one cell. A column in which most values occur only
    once is a measurement, such as a time, and is left out.
    """
    done = frame[frame["state"] == "done"]
    cell = [*size_columns(frame, by), "magnitude"]
    pooled = {}
    for name in map(str, frame.columns):
        if name in COLUMNS or is_axis(name) or name in cell:
            continue
        values = done[name].dropna().unique()
        if 1 < len(values) <= len(done) / 2 and not is_determined(done, name, cell):
            pooled[name] = sorted(map(format_value, values))
    return pooled


def warnings(frame: pd.DataFrame, by: Sequence[str] | None = None) -> list[str]:
    """Return what a reader must know of these rows: unfinished, diverged, made differently."""
    messages = [
        f"the column {name} has several values within a cell ({', '.join(values[:MOST_VALUES])}"
        f"{', ...' if len(values) > MOST_VALUES else ''}), which count as seeds of one cell: add "
        "it to by=, or select rows with where="
        for name, values in pooled_columns(frame, by).items()
    ]
    done = frame[frame["state"] == "done"]
    chosen = planned(frame)
    if len(done) < len(chosen):
        counts = chosen["state"].value_counts()
        rest = ", ".join(f"{n} {state}" for state, n in counts.items() if state != "done")
        messages.append(f"{len(done)} of {len(chosen)} trials are done ({rest})")
    if len(chosen) < len(frame):
        trials = counted(len(frame) - len(chosen), "trial")
        messages.append(f"the rule of the sweep (settle) ruled out another {trials}")
    for column in PROVENANCE:
        if _differs(done, column):
            values = sorted(map(str, done[column].dropna().unique()))
            values += ["unknown"] * done[column].hasnans
            text = ", ".join(values)
            if column == "code" and (files := _differing_files(done)):
                text += f" (files {', '.join(files)})"
            messages.append(f"the rows differ in {column}: {on_one_line(text)}")
    flagged = sum(bool(flags) for flags in values_of(done, "flags"))
    if flagged:
        trials = counted(flagged, "trial")
        messages.append(f"{trials} changed code, packages or machine along the path")
    return messages


def _differing_files(done: pd.DataFrame) -> list[str]:
    """Return the source files in which rows differ, as `harness.rows` found them."""
    lists = [text for text in values_of(done, "code_files") if isinstance(text, str)]
    return sorted({name for text in lists for name in text.split(";")})
