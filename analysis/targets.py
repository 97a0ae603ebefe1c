"""The best magnitude of each size for each target: clean, worst class and corrupted images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from analysis.best import SizeResult, best_per_size, seed_counts
from analysis.columns import EVALUATED, METRICS, Metric, header_of
from analysis.render import (
    Column,
    Table,
    counted,
    format_interval,
    format_levels,
    format_seeds,
    format_value,
    in_unit,
    requested,
)

TARGETS = {"top1": "clean", "worst_class": "worst class", "corrupted": "corrupted"}
"""The metrics that a magnitude is wanted to be best for, and what the table calls them."""


def targets_table(
    frame: pd.DataFrame,
    by: Sequence[str] | None,
    extra_notes: Sequence[str],
    settings: str = "",
    columns: Sequence[str] | None = None,
) -> Table:
    """Return a row for each size, with the best magnitude and its result for each target.

    Targets that some finished row has no result of are left out; a note names them.
    """
    metrics = [METRICS[name] for name in TARGETS if not _missing(frame, name)]
    results = [best_per_size(frame, by, metric, optima=False) for metric in metrics]
    first = results[0] if results else []
    names = list(first[0].size) if first else []
    sizes = [
        Column(name, header_of(name), [format_value(r.size[name]) for r in first],
               {name: [r.size[name] for r in first]})
        for name in names
    ]  # fmt: skip
    available = [
        column
        for metric, of_metric in zip(metrics, results, strict=True)
        for column in _columns(metric, of_metric)
    ]
    shown = requested(available, columns)
    details = ", ".join(filter(None, (settings, format_seeds(seed_counts(first)))))
    notes = [
        "Each magnitude is chosen on the validation images of its target and reported on the test "
        "images of the same target. In parentheses: the magnitudes that are statistically "
        "indistinguishable from it.",
        *(f"{TARGETS[metric.name].capitalize()}: {metric.words}." for metric in metrics),
        *_left_out(frame),
    ]
    return Table.of(
        [*sizes, *shown],
        [*sizes, *(available if columns is None else shown)],
        caption=f"Best augmentation magnitude for each target: {details}.",
        notes=(*notes, *extra_notes),
        name="targets",
    )


def _columns(metric: Metric, results: Sequence[SizeResult]) -> list[Column]:
    """Return the columns of one target: the best magnitude with its ties, and the test result."""
    target = TARGETS[metric.name]

    def best_cell(result: SizeResult) -> str:
        if result.best is None:
            return "-"
        levels = [cell.magnitude for cell in result.cells]
        ties = format_levels(result.ties, levels) if len(result.ties) > 1 else ""
        return format_value(result.best.magnitude) + (f" ({ties})" if ties else "")

    def numbers(values: Sequence[float]) -> list[Any]:
        return [in_unit(value, metric) for value in values]

    name = metric.name
    tests = [format_interval(r.test, r.test_half, metric) for r in results]
    return [
        Column(f"best_{name}", f"best, {target}", list(map(best_cell, results)), {
            f"best_{name}": [r.best.magnitude if r.best else None for r in results],
            f"ties_{name}": [r.ties for r in results],
        }),
        Column(f"test_{name}", f"test, {target}", tests, {
            f"test_{name}": numbers([r.test for r in results]),
            f"test_half_{name}": numbers([r.test_half for r in results]),
        }),
    ]  # fmt: skip


def _missing(frame: pd.DataFrame, name: str) -> int:
    """Return how many finished rows have no result of a metric."""
    done = frame[frame["state"] == "done"]
    sides = [f"{side}_{name}" for side in ("val", "test")]
    if not set(sides) <= set(frame.columns):
        return max(1, len(done))
    known = done[sides].abs().lt(math.inf).all(axis=1)
    return int((~known).sum())


def _left_out(frame: pd.DataFrame) -> list[str]:
    """Return a note for each target that finished rows have no result of."""
    notes = []
    for name, target in TARGETS.items():
        if count := _missing(frame, name):
            remedy = "" if name not in EVALUATED else (
                f": python -m harness.evaluate grid=NAME on={EVALUATED[name]}"
            )  # fmt: skip
            notes.append(f"{target.capitalize()}: not known of {counted(count, 'result')}{remedy}.")
    return notes
