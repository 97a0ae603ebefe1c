"""Which stages a launch trains, and which old results it moves aside for that."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence

from harness.cluster import Scheduler, failure, stage_states
from harness.config import Launch
from harness.files import Damaged
from harness.states import StageState
from harness.store.claims import try_claim
from harness.store.store import Store
from harness.sweep.plan import Plan, todo

RETRY = {"failed": ("failed",), "all": ("failed", "diverged")}
"""States of the stages that `retry=` trains again."""


def stages_to_train(
    launch: Launch,
    plan: Plan,
    store: Store,
    states: Mapping[str, StageState],
    selected: Collection[str],
) -> list[str]:
    """Return the `selected` stages that this launch has to train, parents first.

    Workers of this machine also wait for stages that others train; jobs are not queued for that.
    """
    names = {stage: state.name for stage, state in states.items()}
    remaining = [stage for stage in todo(plan, names, store.has_weights) if stage in selected]
    if launch.cluster.executor == "slurm":
        return [stage for stage in remaining if names[stage] != "running"]
    return remaining


def states_after_retry(
    states: Mapping[str, StageState], retry: str, selected: Collection[str]
) -> dict[str, StageState]:
    """Return the states that `reset_for_retry` would lead to, without a change to the store."""
    return {
        stage: StageState("waiting") if state.name in RETRY[retry] and stage in selected else state
        for stage, state in states.items()
    }


def reset_for_retry(
    plan: Plan,
    store: Store,
    states: Mapping[str, StageState],
    scheduler: Scheduler,
    retry: str,
    selected: Collection[str],
) -> dict[str, StageState]:
    """Let the failed (`retry="all"`: and diverged) stages be trained again; return the new states.

    Only `selected` stages are reset.
    """
    for stage, state in states.items():
        if state.name not in RETRY[retry] or stage not in selected:
            continue
        if state.result is not None:
            _set_result_aside(store, stage, is_retry=True)
        elif failure.blocks(store.failures(stage)):
            store.record_failure(stage, {"class": failure.RETRY, "message": "retry=failed"})
    return stage_states(store, plan.stages, scheduler)


def set_aside(store: Store, remaining: Sequence[str], states: Mapping[str, StageState]) -> int:
    """Move aside damaged files of the `remaining` stages, and results whose weights are missing.

    Returns the number of damaged stages.
    """
    existing = [stage for stage in remaining if states[stage].name in ("damaged", "done")]
    return sum(_set_result_aside(store, stage, is_retry=False) for stage in existing)


def _set_result_aside(store: Store, stage: str, is_retry: bool) -> bool:
    """Move aside the result of a stage that has to be trained again; return if it was damaged.

    Holds the stage's claim, and looks at the store again: another launch may have trained the stage
    since its state was read. With `is_retry`, a diverged result is moved, too.
    """
    if store.replace_folder(stage):
        return True
    claim = try_claim(store.folder(stage), f"launch-{os.getpid()}")
    if claim is None:  # a worker trains it, and has moved the old result itself
        return False
    try:
        result = store.result(stage)
        if is_retry and result["status"] == "diverged":
            reason = f"{stage} diverged, and retry=all asks for it again"
            store.set_aside(stage, reason, "replaced")
        elif not is_retry and not store.has_weights(stage):
            reason = f"the weights of {stage} were not kept and a child needs them"
            store.set_aside(stage, reason, "replaced")
    except FileNotFoundError:
        return False
    except Damaged as error:
        store.set_aside(stage, str(error))
        return True
    finally:
        claim.release()
    return False
