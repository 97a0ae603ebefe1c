"""A sweep as the commands see it: its plan, the state of every stage, and a selection of trials."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.arguments import Option
from harness.cluster.job_registry import Scheduler, query_scheduler, read_records
from harness.cluster.state import stage_states
from harness.config import Launch, load
from harness.errors import UserError
from harness.schema import StageConfig
from harness.states import ENDED, StageState, trial_state
from harness.store.store import Store
from harness.sweep.axes import PATHS, SHORT, axis_path, value_at
from harness.sweep.grid import Grid, Trial
from harness.sweep.plan import Plan, make_plan
from harness.sweep.where import parse

AWAY_SECONDS = 600.0
RETRY_SECONDS = 5.0
MOST_VALUES = 8  # of a name, in a message
COLUMNS = {"dataset": "dataset.name", "precision": "recipe.precision"}
"""Key paths of columns of the rows that are not axes with a short name."""


@dataclass(frozen=True)
class Sweep:
    """The state of a sweep at one moment. `trials` are those for which the selector `where` holds.

    Each trial has its id, the values of its cell, `state`, `why` and `stages`.
    """

    launch: Launch
    plan: Plan
    store: Store
    scheduler: Scheduler
    states: Mapping[str, StageState]
    trials: Sequence[Mapping[str, Any]]

    def stages(self) -> list[str]:
        """Return the stages of the selected trials, each once, parents first."""
        selected = {stage for trial in self.trials for stage in trial["stages"]}
        return [stage for stage in self.plan.stages if stage in selected]


def read_states(
    store: Store,
    stages: Mapping[str, StageConfig],
    heartbeat: Callable[[], None] | None = None,
    must_answer: bool = True,
    sweep: str = "",
) -> tuple[dict[str, StageState], Scheduler]:
    """Return the state of every stage, and what SLURM knows of those that have not ended.

    `heartbeat` and `must_answer` are as in `query_scheduler`. With the name of a `sweep`, SLURM is
    also asked where launches of it submitted stages outside of `stages` that are not finished.
    """
    states = stage_states(store, stages)
    unfinished = {stage for stage, state in states.items() if state.name not in ENDED}
    if sweep:
        records = read_records(store.root, sweep)
        submitted = {s for record in records for part in record.get("parts", ()) for s in part}
        outside = submitted - states.keys()
        unfinished |= outside - {stage for stage in outside & store.ids() if store.is_done(stage)}
    scheduler = query_scheduler(store.root, unfinished, heartbeat, must_answer)
    if scheduler.was_queried:
        known = {stage: state for stage, state in states.items() if state.result is not None}
        states = stage_states(store, stages, scheduler, known)
    return states, scheduler


def names_of_trials(grid: Grid) -> set[str]:
    """Return the names that `where=` and `by=` may use: short names of axes, and key paths."""
    return {*SHORT, *PATHS, *COLUMNS, *grid.axes, "state", "trial"}


def value_of(trial: Trial, name: str) -> Any:
    """Return the value of one of `names_of_trials` other than the state; lists as in YAML."""
    if name == "trial":
        return trial.id
    value = trial.cell.get(name, value_at(trial.config, axis_path(COLUMNS.get(name, name)) or name))
    return list(value) if isinstance(value, tuple) else value


def read_sweep(
    args: list[str],
    options: Mapping[str, Option],
    trains: bool = False,
    must_answer: bool = False,
) -> Sweep:
    """Return the sweep that a command line names.

    `options` are the command's own, to which `where` is added; `trains` is as in `load`. A command
    that trains, and not only as a dry run, waits for a controller that is down. For other commands
    the states are then those of the store, with a note, unless they `must_answer`.

    Raises:
        UserError: a mistake of the command line, or a selector that holds for none of the trials.
    """
    launch = load(args, {**options, "where": Option()}, trains)
    plan = make_plan(launch.grid)
    is_patient = trains and not launch.options.get("dry_run")
    sweep = _read(launch, plan, must_answer, _keep_nothing_alive if is_patient else None)
    if not sweep.trials:
        raise UserError(_describe_empty_selection(sweep))
    return sweep


def _keep_nothing_alive() -> None:
    """Do nothing as heartbeat during a query of SLURM: the command does not have a claim yet."""


def _describe_empty_selection(sweep: Sweep) -> str:
    """Return that `where` holds for none of the trials, and which values they have."""
    where, plan = sweep.launch.options["where"], sweep.plan
    parts = [f"where={where} holds for none of the {len(plan.trials):,} trials"]
    for name in sorted(parse(where, names_of_trials(sweep.launch.grid)).names):
        all_values = [_value(trial, name, plan, sweep.states) for trial in plan.trials]
        values = list(dict.fromkeys(map(str, all_values)))
        more = ", ..." if len(values) > MOST_VALUES else ""
        parts.append(f"{name} is {', '.join(values[:MOST_VALUES])}{more}")
    return "; ".join(parts)


def read_again(launch: Launch, plan: Plan) -> Sweep:
    """Return the present state of the same sweep; repeat the query if the controller is down.

    Raises UserError when it stays down for `AWAY_SECONDS`.
    """
    deadline = time.monotonic() + AWAY_SECONDS
    while True:
        try:
            return _read(launch, plan, must_answer=True)
        except UserError as error:
            if time.monotonic() > deadline:
                raise
            print(f"note: {error}", file=sys.stderr)
            time.sleep(RETRY_SECONDS)


def _read(
    launch: Launch,
    plan: Plan,
    must_answer: bool,
    heartbeat: Callable[[], None] | None = None,
) -> Sweep:
    store, name = Store(launch.store), launch.grid.name
    states, scheduler = read_states(store, plan.stages, heartbeat, must_answer, name)
    trials = select_trials(plan, states, launch)
    return Sweep(launch, plan, store, scheduler, states, trials)


def select_trials(
    plan: Plan, states: Mapping[str, StageState], launch: Launch
) -> list[dict[str, Any]]:
    """Return the trials for which the launch's `where` holds, with their states and stages."""
    where = launch.options.get("where")
    condition = parse(where, names_of_trials(launch.grid)) if where else None
    names = condition.names if condition else ()
    selected = []
    for trial in plan.trials:
        values = {name: _value(trial, name, plan, states) for name in names}
        if condition is None or condition.holds(values):
            state = trial_state(plan.paths[trial.id], states)
            row = {"trial": trial.id, **trial.cell, "state": state.name, "why": state.why}
            selected.append({**row, "stages": list(plan.paths[trial.id])})
    return selected


def _value(trial: Trial, name: str, plan: Plan, states: Mapping[str, StageState]) -> Any:
    """Return the value of one of `names_of_trials`."""
    if name == "state":
        return trial_state(plan.paths[trial.id], states).name
    return value_of(trial, name)
