"""Warnings about rows: trials that are unfinished, and trials that were made in different ways."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from analysis.cells import SizeKey, is_determined, size_keys
from analysis.columns import on_one_line, values_of
from harness.store.provenance import RECORDED

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


def warnings(frame: pd.DataFrame) -> list[str]:
    """Return what a reader must know of these rows: unfinished, diverged, made differently."""
    messages = []
    done = frame[frame["state"] == "done"]
    if len(done) < len(frame):
        counts = frame["state"].value_counts()
        rest = ", ".join(f"{n} {state}" for state, n in counts.items() if state != "done")
        messages.append(f"{len(done)} of {len(frame)} trials are done ({rest})")
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
        messages.append(f"{flagged} trials changed code, packages or machine along their path")
    return messages


def _differing_files(done: pd.DataFrame) -> list[str]:
    """Return the source files in which rows differ, as `harness.rows` found them."""
    lists = [text for text in values_of(done, "code_files") if isinstance(text, str)]
    return sorted({name for text in lists for name in text.split(";")})
