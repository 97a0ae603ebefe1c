"""What is true of every stage and trial: result file first, then heartbeat, then failures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.cluster import failure
from harness.cluster.slurm import Queued
from harness.schema import StageConfig
from harness.store.claims import look
from harness.store.store import Store

STATES = ("done", "diverged", "running", "queued", "failed", "damaged", "waiting")


@dataclass(frozen=True)
class StageState:
    """One of `STATES`, and why where that needs a word."""

    name: str
    why: str = ""
    result: dict[str, Any] | None = None


def stage_states(
    store: Store,
    stages: Mapping[str, StageConfig],
    queued: Mapping[str, tuple[str, Queued]] | None = None,
) -> dict[str, StageState]:
    """State of every stage; `stages` has parents before their children.

    `queued` is the scheduler's word: stages that a job still has, by `arrays.still_queued`.
    """
    queued = queued or {}
    results, damaged = store.results(set(stages))
    begun = store.ids() & set(stages)
    states: dict[str, StageState] = {}
    for stage, config in stages.items():
        parent = states[config.parent] if config.parent else None
        if stage in results:
            result = results[stage]
            states[stage] = StageState(result["status"], "", result)
        elif stage in damaged:
            states[stage] = StageState("damaged", damaged[stage] + "; launch does it again")
        elif stage in begun and (state := _unfinished(store, stage)) is not None:
            states[stage] = state
        elif parent is not None and parent.name in ("failed", "diverged"):
            states[stage] = StageState(parent.name, f"its parent {config.parent} {parent.name}")
        else:
            states[stage] = StageState("waiting")
        if states[stage].name == "waiting" and stage in queued:
            job, word = queued[stage]
            states[stage] = StageState("queued", f"job {job} {word.state} ({word.reason})")
    return states


def _unfinished(store: Store, stage: str) -> StageState | None:
    claim = look(store.folder(stage))
    if claim is not None and claim.live:
        return StageState("running", f"job {claim.job}, heartbeat {claim.age:.0f} s ago")
    failures = store.failures(stage)
    if failure.blocks(failures):
        last = failures[-1]
        return StageState("failed", f"{last['class']}: {last['message']}")
    return StageState("waiting", "stopped, goes on from its last step") if claim else None


def trial_state(path: Sequence[str], states: Mapping[str, StageState]) -> StageState:
    """State of a trial from those of its stages, dense first: its last stage decides."""
    last = states[path[-1]]
    if last.name != "waiting":
        return last
    for stage in path[:-1]:
        if states[stage].name in ("running", "damaged"):
            return states[stage]
    return last
