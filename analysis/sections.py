"""What a report tells besides results: what is missing and why, cost, and how rows were made."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from analysis.best import MIXED, Best
from analysis.render import Table, number
from analysis.stats import mean

if TYPE_CHECKING:
    import pandas as pd

UNEXPLAINED = ("code", "lost", "gang", "start")  # failures that no policy and no user explains
URGENCY = (
    "unexplained", "damaged", "failed", "diverged", "disputed", "running", "queued", "waiting",
)  # fmt: skip
MADE_WITH = (*MIXED, "precision")
VARIES = re.compile(r"\b(?:[0-9a-f]{8,}|\d+(?:\.\d+)?)\b")  # ids, seconds: no reason of its own
AFTER = "tried before, "  # harness.cluster.state.TRIED_BEFORE
EXAMPLES = 2  # cells named for a reason


def unfinished(frame: pd.DataFrame, columns: Sequence[str]) -> Table:
    """Trials without a result, by state and reason: what no one can explain first."""
    groups: dict[tuple[int, str, str], list[str]] = {}
    words: dict[tuple[int, str, str], set[str]] = {}
    names = [*columns, "magnitude", "seed"]
    whys = frame["why"].tolist() if "why" in frame.columns else [None] * len(frame)
    cells = zip(*(frame[name].tolist() for name in names), strict=True)
    for state, why, cell in zip(frame["state"].tolist(), whys, cells, strict=True):
        if state == "done":
            continue
        reason = "" if why is None or why != why else " ".join(str(why).split())
        kind = "unexplained" if _is_unexplained(state, reason) else state
        told = ", ".join(f"{n} {number(v)}" for n, v in zip(names, cell, strict=True))
        key = URGENCY.index(kind), state, VARIES.sub("...", reason)
        groups.setdefault(key, []).append(told)
        words.setdefault(key, set()).add(reason)
    rows = []
    order = sorted(groups.items(), key=lambda item: (item[0][0], -len(item[1]), item[0][2]))
    for key, where in order:
        rank, state, reason = key
        reason = min(words[key]) if len(words[key]) == 1 else reason
        more = f"; and {len(where) - EXAMPLES:,} more" if len(where) > EXAMPLES else ""
        shown = "unexplained error" if URGENCY[rank] == "unexplained" else state
        rows.append((shown, reason or "-", str(len(where)), "; ".join(where[:EXAMPLES]) + more))
    return Table(
        ("state", "why", "trials", "which"),
        tuple(rows),
        "Trials without a result, and why.",
        (),
        name="unfinished",
        strong="state",
    )


def _is_unexplained(state: str, reason: str) -> bool:
    """Whether no policy and no user explains it, also where it is about to be tried again."""
    if reason.startswith(AFTER):
        last = reason.removeprefix(AFTER)
        return last.partition(":")[0] in UNEXPLAINED or last.startswith("job ")
    return state == "failed" and (not reason or reason.partition(":")[0] in UNEXPLAINED)


def completeness(found: Sequence[Best]) -> Table:
    """Seeds done of seeds asked for, size by magnitude."""
    magnitudes = list(dict.fromkeys(cell.magnitude for line in found for cell in line.cells))
    magnitudes.sort(key=lambda m: -1.0 if isinstance(m, str) else m)
    rows = []
    for line in found:
        cells = {cell.magnitude: cell for cell in line.cells}
        texts = []
        for magnitude in magnitudes:
            cell = cells.get(magnitude)
            lost = f", {cell.diverged} diverged" if cell and cell.diverged else ""
            texts.append(f"{len(cell.val)} of {cell.seeds}{lost}" if cell else "-")
        rows.append((*(number(value) for value in line.size.values()), *texts))
    return Table(
        (*(found[0].size if found else ()), *(f"at {number(m)}" for m in magnitudes)),
        tuple(rows),
        "Seeds that are done, of those asked for, at each magnitude.",
        ("-: the grid has no such cell.",) if any("-" in row for row in rows) else (),
        name="completeness",
        strong=None,
    )


def cost(frame: pd.DataFrame, columns: Sequence[str]) -> Table:
    """Device-hours by size: spent, what pilots made beforehand said, and still to be spent."""
    spent: dict[tuple[str, ...], list[tuple[float, float | None]]] = {}
    left: dict[tuple[str, ...], list[float | None]] = {}
    names = [*columns, "state", "gpu_seconds", "estimated_seconds"]
    for *size, state, seconds, guess in zip(*(_column(frame, n) for n in names), strict=True):
        key = tuple(number(value) for value in size)
        trials = spent.setdefault(key, [])
        # a trial that diverged has not taken all of its epochs
        if state == "done" and seconds is not None:
            trials.append((seconds, guess))
        elif state not in ("done", "diverged"):
            left.setdefault(key, []).append(guess)
    rows = []
    for key, trials in spent.items():
        actual = sum(seconds for seconds, _ in trials)
        pairs = [(seconds, guess) for seconds, guess in trials if guess is not None]
        off = [abs(guess / seconds - 1) for seconds, guess in pairs if seconds]
        each = actual / len(trials) if trials else None
        ahead = [guess if each is None else each for guess in left.get(key, [])]
        known = [seconds for seconds in ahead if seconds is not None]
        rows.append(
            (
                *key,
                str(len(trials)),
                _hours(actual) if trials else "-",
                _estimate(pairs, len(trials)),
                f"{100 * mean(off):.0f} %" if off else "-",
                str(len(ahead)),
                _hours(sum(known)) if len(known) == len(ahead) else "unknown",
            )
        )
    return Table(
        (*columns, "trials", "spent", "estimate", "off by", "left", "still to spend"),
        tuple(rows),
        "Device-hours by size of the trials that are done, and what was expected of them.",
        (
            "spent: along each trial's whole path; stages that several trials share count in each "
            "of them, so that the sweep as a whole took less.",
            "estimate: the trial's epochs at the pace of the size's pilot (python -m harness.pilot "
            "measures a few steps of each size before a sweep); off by: mean difference of "
            "estimate and actual of a trial.",
            "still to spend: at the pace of the size's trials that are done, else of its pilot.",
        ),
        name="cost",
        strong=None,
    )


def _estimate(pairs: Sequence[tuple[float, float]], trials: int) -> str:
    if not trials:
        return "-"
    return _hours(sum(guess for _, guess in pairs)) if len(pairs) == trials else "no estimate"


def provenance(frame: pd.DataFrame) -> Table:
    """What the finished rows were made with; differences are named."""
    done = frame[frame["state"] == "done"]
    rows = []
    for column in (name for name in MADE_WITH if name in done.columns):
        counts = Counter(number(value) for value in _column(done, column))
        known = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        if set(counts) - {"-"}:
            told = "; ".join(
                f"{value} ({count:,})" if known[1:] else value for value, count in known
            )
            rows.append((column, told, "differs" if known[1:] else "-"))
    return Table(
        ("what", "value (trials)", "differs"),
        tuple(rows),
        "What the finished trials were made with.",
        (f"rows: SHA-256 {digest(frame)} of {len(frame):,} rows.",),
        name="provenance",
        strong="differs",
    )


def digest(frame: pd.DataFrame) -> str:
    """16 hex digits of the rows' content, whatever kind of file they came from."""
    columns = [[_written(v) for v in _column(frame, str(name))] for name in frame.columns]
    lines = ["\t".join(map(str, frame.columns)), *map("\t".join, zip(*columns, strict=True))]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def _written(value: Any) -> str:
    return f"{value:.12g}" if isinstance(value, float | int) else str(value or "")


def _column(frame: pd.DataFrame, name: str) -> list[Any]:
    """Values as Python's, None where there is none; a column that is absent is all None."""
    if name not in frame.columns:
        return [None] * len(frame)
    return [None if value is None or value != value else value for value in frame[name].tolist()]


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.3g}"
