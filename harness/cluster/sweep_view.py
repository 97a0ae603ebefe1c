"""A sweep as the commands see it: its plan, the state of every stage, and a selection of trials."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from harness.arguments import Option
from harness.cluster.job_registry import Scheduler, query_scheduler, read_records
from harness.cluster.selection import (
    names_of_trials,
    selection,
    value_of,
)
from harness.cluster.settlement import decision_name, read_settlement
from harness.cluster.state import stage_states
from harness.config import Launch, load
from harness.errors import UserError
from harness.schema import StageConfig
from harness.states import ENDED, FINISHED, StageState, trial_state
from harness.store.identity import STAGE_ID
from harness.store.store import Store
from harness.sweep.plan import Plan, make_plan, part_of
from harness.sweep.settle import Settlement
from harness.sweep.where import parse

AWAY_SECONDS = 600.0
RETRY_SECONDS = 5.0
MOST_VALUES = 8  # of a name, in a message


@dataclass(frozen=True)
class Sweep:
    """The state of a sweep at one moment. `trials` are those for which the selector `where` holds.

    Each trial has its id, the values of its cell, `state`, `why` and `stages`. `settlement` is None
    where the full grid is trained.
    """

    launch: Launch
    plan: Plan
    store: Store
    scheduler: Scheduler
    states: Mapping[str, StageState]
    trials: Sequence[Mapping[str, Any]]
    settlement: Settlement | None = None

    def with_states(self, states: Mapping[str, StageState]) -> Sweep:
        """Return the sweep with other states of its stages, and the rounds that follow from them.

        The selection of trials stays as it is.
        """
        settlement = read_settlement(self.launch, self.plan, states)
        return replace(self, states=states, settlement=settlement)

    def rounds_until_now(self) -> Sweep:
        """Return the sweep with only the trials that its rounds chose until now.

        All of them have a result, except for those of the last round. Without the rule `settle` it
        is the whole sweep.
        """
        return self if self.settlement is None else self._part(self.settlement.chosen)

    def not_ruled_out(self) -> Sweep:
        """Return the sweep without the trials that the rule `settle` has ruled out."""
        if self.settlement is None:
            return self
        return self._part({t.id for t in self.plan.trials} - self.settlement.ruled_out)

    def _part(self, ids: Collection[str]) -> Sweep:
        plan = part_of(self.plan, ids)
        states = {stage: self.states[stage] for stage in plan.stages}
        trials = [trial for trial in self.trials if trial["trial"] in ids]
        return replace(self, plan=plan, states=states, trials=trials)

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
    """Return the state of every stage, and what SLURM knows of those that have not ended.

    `heartbeat` and `must_answer` are as in `query_scheduler`.
    """
    states = stage_states(store, stages)
    scheduler = query_scheduler(store.root, _unfinished(states), heartbeat, must_answer)
    return _as_scheduler_says(store, stages, states, scheduler), scheduler


def _unfinished(states: Mapping[str, StageState]) -> set[str]:
    return {stage for stage, state in states.items() if state.name not in ENDED}


def _finished(states: Mapping[str, StageState]) -> set[str]:
    return {stage for stage, state in states.items() if state.name in FINISHED}


def _unfinished_outside(store: Store, sweep: str, stages: Collection[str]) -> set[str]:
    """Return the unfinished stages outside of `stages` that launches of a sweep submitted."""
    records = read_records(store.root, sweep)
    submitted = {s for record in records for part in record.get("parts", ()) for s in part}
    outside = {stage for stage in submitted.difference(stages) if STAGE_ID.fullmatch(stage)}
    return outside - {stage for stage in outside & store.ids() if store.is_done(stage)}


def _as_scheduler_says(
    store: Store,
    stages: Mapping[str, StageConfig],
    states: dict[str, StageState],
    scheduler: Scheduler,
) -> dict[str, StageState]:
    """Return the states of the store, as SLURM's queue completes them if it was read."""
    if not scheduler.was_queried:
        return states
    known = {stage: state for stage, state in states.items() if state.result is not None}
    return stage_states(store, stages, scheduler, known)


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
        if name == "state":
            ruled_out = sweep.settlement.ruled_out if sweep.settlement else ()
            all_values = [
                trial_state(path, sweep.states, trial in ruled_out).name
                for trial, path in plan.paths.items()
            ]
        else:
            all_values = [value_of(trial, name) for trial in plan.trials]
        values = list(dict.fromkeys(map(str, all_values)))
        more = ", ..." if len(values) > MOST_VALUES else ""
        parts.append(f"{name} is {', '.join(values[:MOST_VALUES])}{more}")
    return "; ".join(parts)


def read_again(launch: Launch, plan: Plan, heartbeat: Callable[[], None] | None = None) -> Sweep:
    """Return the present state of the same sweep; repeat the query if the controller is down.

    Raises UserError when it stays down for `AWAY_SECONDS`, or, with `heartbeat`, for the time after
    which `query_scheduler` gives up.
    """
    if heartbeat is not None:
        return _read(launch, plan, must_answer=True, heartbeat=heartbeat)
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
    states = stage_states(store, plan.stages)
    sweep = Sweep(launch, plan, store, Scheduler(), states, ()).with_states(states)
    unfinished = _unfinished(states) | _unfinished_outside(store, name, states)
    if sweep.settlement is not None and sweep.settlement.round:
        unfinished.add(decision_name(launch, plan))
    scheduler = query_scheduler(store.root, unfinished, heartbeat, must_answer)
    states = _as_scheduler_says(store, plan.stages, states, scheduler)
    if _finished(states) != _finished(sweep.states):  # results came while SLURM was asked
        sweep = sweep.with_states(states)
    sweep = replace(sweep, scheduler=scheduler, states=states)
    ruled_out = sweep.settlement.ruled_out if sweep.settlement else frozenset[str]()
    return replace(sweep, trials=select_trials(plan, states, launch, ruled_out))


def select_trials(
    plan: Plan,
    states: Mapping[str, StageState],
    launch: Launch,
    ruled_out: Collection[str] = (),
) -> list[dict[str, Any]]:
    """Return the trials for which the launch's `where` holds, with their states and stages.

    `ruled_out` are the ids of the trials that the rule `settle` leaves out.
    """
    condition = selection(launch)
    names = condition.names if condition else ()
    selected = []
    for trial in plan.trials:
        state = trial_state(plan.paths[trial.id], states, trial.id in ruled_out)
        values = {n: state.name if n == "state" else value_of(trial, n) for n in names}
        if condition is None or condition.holds(values):
            row = {"trial": trial.id, **trial.cell, "state": state.name, "why": state.why}
            selected.append({**row, "stages": list(plan.paths[trial.id])})
    return selected
