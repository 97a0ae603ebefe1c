"""Tables of the report that do not show results: missing trials, cost, and how rows were made."""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import pandas as pd

from analysis.best import SizeResult, magnitudes_of
from analysis.cells import Cell, groups_of
from analysis.columns import values_of
from analysis.provenance import PROVENANCE
from analysis.render import Table, format_value
from harness.cluster.state import TRIED_BEFORE

UNEXPLAINED = "unexplained error"
UNEXPLAINED_CLASSES = ("code", "lost", "gang", "start")  # that neither policy nor user explains
URGENCY = (
    UNEXPLAINED, "damaged", "failed", "diverged", "disputed", "running", "queued", "waiting",
)  # fmt: skip
"""The states of trials without a result, in the order in which the report lists them."""
MADE_WITH = (*PROVENANCE, "precision")
VARIABLE_PARTS = re.compile(r"\b(?:[0-9a-f]{8,}|\d+(?:\.\d+)?)\b", re.ASCII)  # ids, seconds
EXAMPLES = 2  # trials named for a reason


def unfinished(frame: pd.DataFrame, columns: Sequence[str]) -> Table:
    """Return the trials without a result by state and reason, unexplained errors first.

    Reasons that differ only in ids and numbers count as one.
    """
    names = [*columns, "magnitude", "seed"]
    trials = zip(*(frame[name].tolist() for name in names), strict=True)
    groups: dict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)  # reason and trial
    for state, why, values in zip(frame["state"], values_of(frame, "why"), trials, strict=True):
        if state == "done":
            continue
        reason = " ".join(str(why or "").split())
        shown = UNEXPLAINED if _is_unexplained(state, reason) else state
        pairs = zip(names, values, strict=True)
        trial = ", ".join(f"{name} {format_value(value)}" for name, value in pairs)
        groups[shown, VARIABLE_PARTS.sub("...", reason)].append((reason, trial))
    rows = []
    order = sorted(groups, key=lambda key: (URGENCY.index(key[0]), -len(groups[key]), key[1]))
    for state, common_reason in order:
        group = groups[state, common_reason]
        reasons = {reason for reason, _ in group}
        reason = reasons.pop() if len(reasons) == 1 else common_reason
        which = "; ".join(trial for _, trial in group[:EXAMPLES])
        if len(group) > EXAMPLES:
            which += f"; and {len(group) - EXAMPLES:,} more"
        rows.append((state, reason or "-", str(len(group)), which))
    return Table(
        ("state", "why", "trials", "which"),
        tuple(rows),
        "Trials without a result, and why.",
        (),
        name="unfinished",
        strong="state",
    )


def _is_unexplained(state: str, reason: str) -> bool:
    """Return whether neither a policy nor the user explains the failure, even if it is retried."""
    if reason.startswith(TRIED_BEFORE):
        last = reason.removeprefix(TRIED_BEFORE)
        return last.partition(":")[0] in UNEXPLAINED_CLASSES or last.startswith("job ")
    return state == "failed" and (not reason or reason.partition(":")[0] in UNEXPLAINED_CLASSES)


def completeness(results: Sequence[SizeResult]) -> Table:
    """Return the number of finished seeds of those in the grid, size by magnitude."""
    ordered = magnitudes_of(results)
    rows = []
    for result in results:
        cells = {cell.magnitude: cell for cell in result.cells}
        texts = [_finished_seeds(cells.get(magnitude)) for magnitude in ordered]
        rows.append((*map(format_value, result.size.values()), *texts))
    return Table(
        (*(results[0].size if results else ()), *(f"at {format_value(m)}" for m in ordered)),
        tuple(rows),
        "Finished seeds, of those in the grid, at each magnitude.",
        ("-: the grid has no such cell.",) if any("-" in row for row in rows) else (),
        name="completeness",
    )


def _finished_seeds(cell: Cell | None) -> str:
    if cell is None:
        return "-"
    diverged = f", {cell.diverged} diverged" if cell.diverged else ""
    return f"{len(cell.val)} of {cell.seeds}{diverged}"


def cost(frame: pd.DataFrame, columns: Sequence[str]) -> Table:
    """Return device-hours by size: spent, estimated by pilots beforehand, and still to be spent."""
    frame = frame.assign(**{n: values_of(frame, n) for n in ("gpu_seconds", "estimated_seconds")})
    frame = frame.astype({"gpu_seconds": float, "estimated_seconds": float})
    rows = [
        (*map(format_value, size.values()), *_cost_of_size(trials))
        for size, trials in groups_of(frame, columns)
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


def _cost_of_size(trials: pd.DataFrame) -> tuple[str, ...]:
    """Return the cells of one size from its trials."""
    done = trials[(trials["state"] == "done") & trials["gpu_seconds"].notna()]
    spent, estimates = done["gpu_seconds"], done["estimated_seconds"]
    # diverged trials end early and are not repeated
    remaining = trials[~trials["state"].isin(["done", "diverged"])]["estimated_seconds"]
    expected = pd.Series(spent.mean(), remaining.index) if len(done) else remaining
    errors = (estimates / spent - 1).abs()[spent > 0].dropna()
    has_all = not estimates.isna().any()
    return (
        str(len(done)),
        _hours(spent.sum()) if len(done) else "-",
        "-" if done.empty else _hours(estimates.sum()) if has_all else "no estimate",
        f"{100 * errors.mean():.0f} %" if len(errors) else "-",
        str(len(remaining)),
        "unknown" if expected.isna().any() else _hours(expected.sum()),
    )


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.3g}"


def provenance(frame: pd.DataFrame) -> Table:
    """Return what the finished rows were made with; differences are named."""
    done = frame[frame["state"] == "done"]
    rows = []
    for column in MADE_WITH:
        counts = Counter(map(format_value, values_of(done, column)))
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
    columns = [[_digest_text(v) for v in values_of(frame, str(name))] for name in frame.columns]
    lines = ["\t".join(map(str, frame.columns)), *map("\t".join, zip(*columns, strict=True))]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def _digest_text(value: Any) -> str:
    return f"{value:.12g}" if isinstance(value, float | int) else str(value or "")
