"""Which trials of a grid the selector `where` of a command holds for."""

from __future__ import annotations

from typing import Any

from harness.config import Launch
from harness.config.settle import is_size
from harness.errors import UserError
from harness.sweep.axes import PATHS, SHORT, axis_path, value_at
from harness.sweep.grid import Grid, Trial
from harness.sweep.plan import Plan
from harness.sweep.where import Condition, parse

COLUMNS = {"dataset": "dataset.name", "precision": "recipe.precision"}
"""Key paths of columns of the rows that are not axes with a short name."""


def names_of_trials(grid: Grid) -> set[str]:
    """Return the names that `where=` and `by=` may use: short names of axes, and key paths."""
    return {*SHORT, *PATHS, *COLUMNS, *grid.axes, "state", "trial"}


def value_of(trial: Trial, name: str) -> Any:
    """Return the value of one of `names_of_trials` other than the state; lists as in YAML."""
    if name == "trial":
        return trial.id
    value = trial.cell.get(name, value_at(trial.config, axis_path(COLUMNS.get(name, name)) or name))
    return list(value) if isinstance(value, tuple) else value


def selection(launch: Launch) -> Condition | None:
    """Return the parsed `where` of a command line; None without one."""
    where = launch.options.get("where")
    return parse(where, names_of_trials(launch.grid)) if where else None


def trials_to_settle(launch: Launch, plan: Plan) -> list[Trial]:
    """Return the trials of the sizes that `where` selects; of all sizes where it selects cells."""
    condition = selection(launch)
    if condition is None or not all(map(is_size, condition.names)):
        return list(plan.trials)
    return [
        trial
        for trial in plan.trials
        if condition.holds({name: value_of(trial, name) for name in condition.names})
    ]


def refuse_parts_of_sizes(launch: Launch) -> None:
    """Refuse a selector by which a launch would train some cells of a size that has to settle."""
    condition = selection(launch)
    if launch.settle is None or condition is None:
        return
    if cells := sorted(name for name in condition.names if not is_size(name)):
        raise UserError(
            f"where={condition.text} selects by {' and '.join(cells)}, but settle itself chooses "
            "which magnitudes and seeds of a size are trained: select whole sizes, by other axes, "
            "or train a part of the full grid with settle=false"
        )
