"""Tables of the report that do not show results: missing trials, cost, and how rows were made."""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from analysis.best import SizeResult, magnitudes_of
from analysis.cells import Cell, SizeKey, size_keys
from analysis.columns import values_of
from analysis.provenance import PROVENANCE
from analysis.render import Table, format_value
from harness.cluster.job_registry import ENDED_EARLY
from harness.cluster.state import TRIED_BEFORE
from harness.states import FINISHED, RULED_OUT
from harness.statistics import mean

UNEXPLAINED = "unexplained error"
UNEXPLAINED_CLASSES = ("code", "lost", "gang", "start")
"""Classes of failures that are bugs or broken nodes, not limits of SLURM or the user's mistakes."""
URGENCY = (
    UNEXPLAINED, "damaged", "failed", "diverged", "disputed", "running", "queued", "waiting",
    RULED_OUT,
)  # fmt: skip
"""The states of trials without a result, in the order in which the report lists them."""
MADE_WITH = (*PROVENANCE, "precision")
VARIABLE_PARTS = re.compile(r"\b(?:[0-9a-f]{8,}|\d+(?:\.\d+)?)\b", re.ASCII)  # ids, seconds
EXAMPLES = 2  # number of trials that a row names


def unfinished(frame: pd.DataFrame, columns: Sequence[str]) -> Table:
    """Return the trials without a result by state and reason, unexplained errors first.

    Reasons that differ only in ids and numbers count as one.
    """
    names = [*columns, "magnitude", "seed"]
    trials = zip(*(frame[name].tolist() for name in names), strict=True)
    groups: dict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)  # message and trial
    for state, why, values in zip(frame["state"], values_of(frame, "why"), trials, strict=True):
        if state == "done":
            continue
        message = " ".join(str(why or "").split())
        shown = UNEXPLAINED if _is_unexplained(state, message) else state
        pairs = zip(names, values, strict=True)
        trial = ", ".join(f"{name} {format_value(value)}" for name, value in pairs)
        groups[shown, VARIABLE_PARTS.sub("...", message)].append((message, trial))
    rows = []
    order = sorted(groups, key=lambda key: (URGENCY.index(key[0]), -len(groups[key]), key[1]))
    for shown, pattern in order:
        group = groups[shown, pattern]
        messages = {message for message, _ in group}
        text = messages.pop() if len(messages) == 1 else pattern
        which = "; ".join(trial for _, trial in group[:EXAMPLES])
        if len(group) > EXAMPLES:
            which += f"; and {len(group) - EXAMPLES:,} more"
        rows.append((shown, text or "-", str(len(group)), which))
    return Table(
        ("state", "why", "trials", "which"),
        tuple(rows),
        "Trials without a result, and why.",
        (),
        name="unfinished",
        strong="state",
    )


def _is_unexplained(state: str, message: str) -> bool:
    """Return whether a bug or a broken node may be the cause, also if the trial is retried."""
    last = message.removeprefix(TRIED_BEFORE)
    is_unexplained = not last or last.partition(":")[0] in UNEXPLAINED_CLASSES
    if last != message:  # a job may have ended without a record
        return is_unexplained or last.endswith(ENDED_EARLY)
    return state == "failed" and is_unexplained


def completeness(results: Sequence[SizeResult]) -> Table:
    """Return how many of the grid's seeds are finished: a row per size, a column per magnitude."""
    ordered = magnitudes_of(results)
    rows = []
    has_gaps = False
    for result in results:
        cells = {cell.magnitude: cell for cell in result.cells}
        has_gaps |= len(cells) < len(ordered)
        texts = [_finished_seeds(cells.get(magnitude)) for magnitude in ordered]
        rows.append((*map(format_value, result.size.values()), *texts))
    return Table(
        (*(results[0].size if results else ()), *(f"at {format_value(m)}" for m in ordered)),
        tuple(rows),
        "Finished seeds, of those in the grid, at each magnitude.",
        ("-: the grid has no such cell.",) if has_gaps else (),
        name="completeness",
    )


def _finished_seeds(cell: Cell | None) -> str:
    if cell is None:
        return "-"
    diverged = f", {cell.diverged} diverged" if cell.diverged else ""
    ruled_out = f", {cell.ruled_out} {RULED_OUT}" if cell.ruled_out else ""
    if cell.is_ruled_out:
        return RULED_OUT
    return f"{len(cell.val)} of {cell.seeds + cell.ruled_out}{diverged}{ruled_out}"


class Trial(NamedTuple):
    """State and device-seconds of one trial, as `cost` uses them; NaN where unknown."""

    state: str
    spent: float
    estimate: float


def cost(frame: pd.DataFrame, columns: Sequence[str]) -> Table:
    """Return device-hours by size: spent, estimated by pilots beforehand, and still to be spent."""
    names = ("gpu_seconds", "estimated_seconds")
    seconds = (pd.Series(values_of(frame, name), dtype=float) for name in names)
    keys = size_keys(frame, columns)
    # numbers that sort the sizes; their values cannot be sorted where some are missing
    places = frame.groupby(list(columns), dropna=False).ngroup() if columns else [0] * len(frame)
    trials_of: dict[tuple[int, SizeKey], list[Trial]] = defaultdict(list)
    for place, key, *values in zip(places, keys, frame["state"], *seconds, strict=True):
        trials_of[place, key].append(Trial(*values))
    rows = [
        (*map(format_value, key), *_cost_of_size(trials))
        for (_, key), trials in sorted(trials_of.items(), key=lambda item: item[0][0])
    ]
    return Table(
        (*columns, "trials", "spent", "estimate", "off by", "left", "still to spend"),
        tuple(rows),
        "Device-hours by size of the finished trials, and what was expected of them.",
        (
            "spent: along each trial's whole path; a stage that several trials share counts in "
            "each of them, so the sweep as a whole took less.",
            "estimate: the trial's epochs at the pace of the size's pilot (python -m harness.pilot "
            "measures a few steps of each size before a sweep); off by: mean difference of "
            "estimate and actual of a trial.",
            "still to spend: at the pace of the size's finished trials, else of its pilot.",
        ),
        name="cost",
    )


def _cost_of_size(trials: Sequence[Trial]) -> tuple[str, ...]:
    """Return the cells of one size from its trials."""
    done = [t for t in trials if t.state == "done" and not math.isnan(t.spent)]
    spent = sum(trial.spent for trial in done)
    # diverged trials end early and are not repeated
    remaining = [trial for trial in trials if trial.state not in (*FINISHED, RULED_OUT)]
    expected = [spent / len(done) if done else trial.estimate for trial in remaining]
    errors = [abs(t.estimate / t.spent - 1) for t in done if t.spent and not math.isnan(t.estimate)]
    estimated = sum(trial.estimate for trial in done)
    estimate = "no estimate" if math.isnan(estimated) else _hours(estimated)
    return (
        str(len(done)),
        _hours(spent) if done else "-",
        estimate if done else "-",
        f"{100 * mean(errors):.0f} %" if errors else "-",
        str(len(remaining)),
        "unknown" if math.isnan(sum(expected)) else _hours(sum(expected)),
    )


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.3g}"


def provenance(frame: pd.DataFrame) -> Table:
    """Return what the finished rows were made with; differences are named."""
    shown = [column for column in MADE_WITH if column in frame.columns]
    done = frame.loc[frame["state"] == "done", shown]
    rows = []
    for column in shown:
        counts: Counter[str] = Counter()
        for value, number in done[column].value_counts(dropna=False).items():
            counts[format_value(value)] += number
        if set(counts) - {"-"}:
            ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
            differs = len(ordered) > 1
            values = (f"{value} ({n:,})" if differs else value for value, n in ordered)
            rows.append((column, "; ".join(values), "differs" if differs else "-"))
    return Table(
        ("what", "value (trials)", "differs"),
        tuple(rows),
        "What the finished trials were made with.",
        (f"rows: SHA-256 {digest(frame)} of {len(frame):,} rows.",),
        name="provenance",
        strong="differs",
    )


def digest(frame: pd.DataFrame) -> str:
    """Return 16 hex digits of the rows' content, the same for a CSV and a Parquet file of them."""
    content = hashlib.sha256()
    for name in frame.columns:
        codes, values = pd.factorize(frame[name].astype(object))
        # a missing value has the code -1, which takes the last text
        texts = np.array([*map(_digest_text, values), ""], dtype=object)
        content.update("\n".join([str(name), *texts[codes], "\n"]).encode())
    return content.hexdigest()[:16]


def _digest_text(value: Any) -> str:
    return f"{value:.12g}" if isinstance(value, float | int) else str(value)
