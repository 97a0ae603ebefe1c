"""The difficulty that a teacher chooses for, looked up in a table for each size.

The table has a column `target` (the teacher's loss, in nats) and any of the columns `dataset`,
`family`, `depth`, `width`, `sparsity` and `policy`. It has one row for each size.
"""

from __future__ import annotations

import math

from harness.errors import UserError
from harness.schema import TeacherConfig, TrialConfig, canonical
from harness.sweep.tables import read_rows, row_matches, size_columns, table_path

KEY = "teacher.target_table"


def resolved(trial: TrialConfig) -> TeacherConfig:
    """Return the trial's teacher, with the target that its table has for the trial's size.

    Raises:
        UserError: a table that cannot be read, or that does not have one target for the size.
    """
    if trial.teacher.target_table is None:
        return trial.teacher
    path = table_path(trial.teacher.target_table)
    size = {**size_columns(trial), "sparsity": trial.compress.sparsity}
    rows = read_rows(KEY, path, ["target"])
    targets = [(_target(path, row["target"]), row_matches(row, size)) for row in rows]
    of_size = {target for target, matches in targets if matches}
    if len(of_size) != 1:
        words = ", ".join(f"{name} {value}" for name, value in size.items() if value is not None)
        problem = f"has several targets for {words}" if of_size else f"lacks {words}"
        raise UserError(f"{KEY}: the table {path} {problem}; give it one row for each size.")
    update = {"target": of_size.pop(), "target_table": None}
    return trial.teacher.model_copy(update=update)


def _target(path: str, text: str | None) -> float:
    try:
        target = float(canonical(float(text or "")))
    except ValueError:
        target = math.nan
    if not 0.0 <= target < math.inf:
        raise UserError(
            f"{KEY}: the table {path} has the target {text!r}, which is not a loss of 0 or more."
        )
    return target
