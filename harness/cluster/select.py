"""A sweep as the verbs see it: its plan, the state of every stage, and a choice of its trials."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.arguments import Option
from harness.cluster import queued
from harness.cluster.queued import Scheduler
from harness.cluster.state import stage_states
from harness.config import Launch, load
from harness.errors import UserError
from harness.store.store import Store
from harness.sweep.plan import Plan, make_plan
from harness.sweep.states import StageState, trial_state
from harness.sweep.where import parse

AWAY_SECONDS = 600.0
RETRY_SECONDS = 5.0


@dataclass(frozen=True)
class Sweep:
    """One look at a sweep. `trials` are those that the selector `where` holds for."""

    launch: Launch
    plan: Plan
    store: Store
    scheduler: Scheduler
    states: Mapping[str, StageState]
    trials: Sequence[Mapping[str, Any]]  # id, cell, state, why, stages

    def stages(self) -> list[str]:
        """Stages of the selected trials, each once, parents first."""
        wanted = {stage for trial in self.trials for stage in trial["stages"]}
        return [stage for stage in self.plan.stages if stage in wanted]


def look_at(args: list[str], options: Mapping[str, Option], trains: bool = False) -> Sweep:
    """The sweep that a command line names; `where` is among its options, `trains` as in `load`."""
    launch = load(args, {**options, "where": Option()}, trains)
    plan = make_plan(launch.grid)
    return _look(launch, plan)


def again(launch: Launch, plan: Plan) -> Sweep:
    """Another look at the same sweep; a controller that is away is waited for, up to a deadline.

    Raises UserError when it does not come back.
    """
    deadline = time.monotonic() + AWAY_SECONDS
    while True:
        try:
            return _look(launch, plan)
        except UserError as error:
            if time.monotonic() > deadline:
                raise
            print(f"note: {error}", file=sys.stderr)
            time.sleep(RETRY_SECONDS)


def _look(launch: Launch, plan: Plan) -> Sweep:
    store = Store(launch.store)
    scheduler = queued.ask(store.root)
    states = stage_states(store, plan.stages, scheduler)
    trials = select(plan, states, launch)
    return Sweep(launch, plan, store, scheduler, states, trials)


def select(plan: Plan, states: Mapping[str, StageState], launch: Launch) -> list[dict[str, Any]]:
    """The trials that the launch's `where` holds for, with their states and stages."""
    where = launch.options.get("where")
    condition = parse(where, {*launch.grid.axes, "state", "trial"}) if where else None
    found = []
    for trial in plan.trials:
        state = trial_state(plan.paths[trial.id], states)
        row = {"trial": trial.id, **trial.cell, "state": state.name}
        if condition is None or condition.holds(row):
            found.append({**row, "why": state.why, "stages": list(plan.paths[trial.id])})
    return found
