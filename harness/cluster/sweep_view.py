"""A sweep as the commands see it: its plan, the state of every stage, and a selection of trials."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.arguments import Option
from harness.cluster.job_registry import Scheduler, query_scheduler
from harness.cluster.state import stage_states
from harness.config import Launch, load
from harness.errors import UserError
from harness.schema import StageConfig
from harness.states import SETTLED, StageState, trial_state
from harness.store.store import Store
from harness.sweep.plan import Plan, make_plan
from harness.sweep.where import parse

AWAY_SECONDS = 600.0
RETRY_SECONDS = 5.0


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
) -> tuple[dict[str, StageState], Scheduler]:
    """Return the state of every stage, and what SLURM knows of those that are not settled.

    `heartbeat` and `must_answer` are as in `query_scheduler`.
    """
    states = stage_states(store, stages)
    unfinished = {stage for stage, state in states.items() if state.name not in SETTLED}
    scheduler = query_scheduler(store.root, unfinished, heartbeat, must_answer)
    if scheduler.was_queried:
        known = {stage: state for stage, state in states.items() if state.result is not None}
        states = stage_states(store, stages, scheduler, known)
    return states, scheduler


def read_sweep(
    args: list[str],
    options: Mapping[str, Option],
    trains: bool = False,
    must_answer: bool = False,
) -> Sweep:
    """Return the sweep that a command line names.

    `options` are the command's own, to which `where` is added; `trains` is as in `load`. Where
    SLURM does not answer, states are those of the store, with a note, unless `must_answer`.
    """
    launch = load(args, {**options, "where": Option()}, trains)
    return _read(launch, make_plan(launch.grid), must_answer)


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


def _read(launch: Launch, plan: Plan, must_answer: bool) -> Sweep:
    store = Store(launch.store)
    states, scheduler = read_states(store, plan.stages, must_answer=must_answer)
    trials = select_trials(plan, states, launch)
    return Sweep(launch, plan, store, scheduler, states, trials)


def select_trials(
    plan: Plan, states: Mapping[str, StageState], launch: Launch
) -> list[dict[str, Any]]:
    """Return the trials for which the launch's `where` holds, with their states and stages."""
    where = launch.options.get("where")
    condition = parse(where, {*launch.grid.axes, "state", "trial"}) if where else None
    selected = []
    for trial in plan.trials:
        state = trial_state(plan.paths[trial.id], states)
        row = {"trial": trial.id, **trial.cell, "state": state.name}
        if condition is None or condition.holds(row):
            selected.append({**row, "why": state.why, "stages": list(plan.paths[trial.id])})
    return selected
