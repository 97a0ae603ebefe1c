"""Which stages a launch trains, and which old results it moves aside for that."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from harness.cluster import Sweep, failure, stage_states
from harness.commands import launches
from harness.files import Damaged
from harness.schema import StageConfig
from harness.states import StageState
from harness.store.claims import try_claim
from harness.store.store import Store
from harness.sweep import cost
from harness.sweep.plan import Plan, todo

RETRY = {"failed": ("failed",), "all": ("failed", "diverged")}
"""States of the stages that `retry=` trains again."""


def stages_to_train(sweep: Sweep) -> list[str]:
    """Return the selected stages that a launch has to train, parents first.

    Workers of this machine also wait for stages that others train; jobs are not queued for that.
    """
    names = {stage: state.name for stage, state in sweep.states.items()}
    selected = set(sweep.stages())
    remaining = todo(sweep.plan, names, sweep.store.has_start, selected)
    if sweep.launch.cluster.executor == "slurm":
        return [stage for stage in remaining if names[stage] != "running"]
    return remaining


def check_budget(sweep: Sweep, remaining: Sequence[str]) -> str:
    """Return why the budget ends the rounds of `settle` before the `remaining` stages, or ''.

    Raises UserError where it does not pay for the full grid, or for the first round.
    """
    spent = 0.0 if sweep.settlement is None else spent_hours(sweep)
    hours = sweep.launch.options["budget"]
    return cost.check_budget(sweep.plan, sweep.states, remaining, sweep.store.root, hours, spent)


def spent_hours(sweep: Sweep) -> float:
    """Return the device-hours of the stages of the rounds that launches of this sweep trained.

    What other sweeps had trained before is free.
    """
    records = launches.read(sweep.store, sweep.launch.grid.name)
    trained = {stage for record in records for stage in record["stages"]}
    states = sweep.rounds_until_now().states
    results = [state.result for stage, state in states.items() if stage in trained]
    return sum(result["timing"]["gpu_seconds"] for result in results if result) / 3600


def _to_retry(sweep: Sweep) -> list[str]:
    """Return the selected stages that `retry=` trains again: with `settle`, of its rounds only."""
    names = RETRY[sweep.launch.options["retry"]]
    part = sweep.rounds_until_now()
    return [stage for stage in part.stages() if part.states[stage].name in names]


def after_retry(sweep: Sweep) -> Sweep:
    """Return the sweep as `reset_for_retry` would leave it, without a change to the store."""
    waiting = dict.fromkeys(_to_retry(sweep), StageState("waiting"))
    return sweep.with_states({**sweep.states, **waiting})


def reset_for_retry(sweep: Sweep) -> Sweep:
    """Let the failed (`retry=all`: and diverged) selected stages be trained again."""
    for stage in _to_retry(sweep):
        if sweep.states[stage].result is not None:
            _set_result_aside(sweep.store, stage, is_retry=True)
        elif failure.blocks(sweep.store.failures(stage)):
            sweep.store.record_failure(stage, {"class": failure.RETRY, "message": "retry=failed"})
    states = stage_states(sweep.store, sweep.plan.stages, sweep.scheduler)
    return sweep.with_states(states)


def set_aside(
    store: Store, plan: Plan, remaining: Sequence[str], states: Mapping[str, StageState]
) -> None:
    """Move aside damaged files of the `remaining` stages, and results whose weights are missing."""
    starting: dict[str, list[StageConfig]] = {}
    for stage in remaining:
        if (origin := plan.stages[stage].origin) is not None:
            starting.setdefault(origin, []).append(plan.stages[stage])
    for stage in remaining:
        if states[stage].name in ("damaged", "done"):
            _set_result_aside(store, stage, starting.get(stage, []))


def _set_result_aside(
    store: Store, stage: str, starting: Sequence[StageConfig] = (), is_retry: bool = False
) -> None:
    """Move aside the result of a stage that has to be trained again.

    Holds the stage's claim, and looks at the store again: another launch may have trained the stage
    since its state was read. `starting`: stages that need its weights. With `is_retry`, a diverged
    result is moved, too.
    """
    if store.replace_folder(stage):
        return
    claim = try_claim(store.folder(stage), f"launch-{os.getpid()}")
    if claim is None:  # a worker trains it, and has moved the old result itself
        return
    try:
        result = store.result(stage)
        if is_retry and result["status"] == "diverged":
            reason = f"{stage} diverged, and retry=all asks for it again"
            store.set_aside(stage, reason, "replaced")
        elif not all(store.has_start(config) for config in starting):
            reason = f"what {stage} ended with was not kept, and another stage starts from it"
            store.set_aside(stage, reason, "replaced")
    except FileNotFoundError:
        pass
    except Damaged as error:
        store.set_aside(stage, str(error))
    finally:
        claim.release()
