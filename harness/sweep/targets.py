"""The difficulty that a teacher chooses for, of each size, from a table by hand.

A line for each size: `target` (nats), and any of `dataset,family,depth,width,sparsity,policy`.
"""

from __future__ import annotations

import csv
import functools
from pathlib import Path

from harness.errors import UserError
from harness.schema import TeacherConfig, TrialConfig
from harness.sweep.matched import agrees, size_of


def resolved(trial: TrialConfig) -> TeacherConfig:
    """The trial's teacher, with the target that its table has for the trial's size.

    Raises:
        UserError: a table that is not there, is none, or has not one target for the size.
    """
    path = trial.teacher.target_table
    if path is None:
        return trial.teacher
    size = {**size_of(trial), "sparsity": trial.compress.sparsity}
    lines = _lines(path)
    found = {said for said, line in lines if all(agrees(dict(line), n, v) for n, v in size.items())}
    if len(found) != 1:
        told = ", ".join(f"{name} {value}" for name, value in size.items() if value is not None)
        several = f"has several targets for {told}" if found else f"lacks {told}"
        raise UserError(f"teacher.target_table: {path} {several}; give it one line for each size.")
    return _with_target(trial.teacher, found.pop())


@functools.cache
def _with_target(teacher: TeacherConfig, target: float) -> TeacherConfig:
    """One object for equal ones, so that a plan knows them as equal."""
    return teacher.model_copy(update={"target": target, "target_table": None})


def _lines(path: str) -> list[tuple[float, dict[str, str]]]:
    try:
        with Path(path).expanduser().open(newline="", encoding="utf-8") as file:
            lines = [(float(line["target"]), line) for line in csv.DictReader(file)]
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise UserError(
            f"teacher.target_table: {path} is no table with numbers in a column `target` ({error})."
        ) from error
    if not all(0.0 <= target < float("inf") for target, _ in lines):
        raise UserError(f"teacher.target_table: {path} has a target that is no loss from 0 up.")
    return lines
