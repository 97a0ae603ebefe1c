"""What is true of every stage and trial: result file first, then heartbeat, then failures."""

from __future__ import annotations

from collections.abc import Mapping

from harness.cluster import failure
from harness.cluster.queued import Scheduler
from harness.schema import StageConfig
from harness.store.claims import STALE_SECONDS, look
from harness.store.store import Store
from harness.sweep.states import NEVER_BEGUN, StageState

AFTER = "tried before, "
LAG_SECONDS = 30.0
"""So long squeue may not show a job that has just ended, or begun."""


def stage_states(
    store: Store, stages: Mapping[str, StageConfig], scheduler: Scheduler | None = None
) -> dict[str, StageState]:
    """State of every stage; `stages` has parents before their children.

    Three witnesses: a result file decides; then a heartbeat, then the scheduler. Where the last two
    contradict each other for longer than they lag, the stage is "disputed".
    """
    scheduler = scheduler or Scheduler()
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
        elif stage in begun and (state := _unfinished(store, stage, scheduler)) is not None:
            states[stage] = state
        elif parent is not None and parent.name in ("failed", "diverged"):
            states[stage] = StageState(parent.name, f"its parent {config.parent} {parent.name}")
        else:
            states[stage] = StageState("waiting")
        if states[stage].name == "waiting" and stage in scheduler.stages:
            job, word = scheduler.stages[stage]
            states[stage] = StageState("queued", f"job {job} {word.state} ({word.reason})", job=job)
        elif states[stage] == NEVER_BEGUN and stage in scheduler.gone:
            why = f"{AFTER}job {scheduler.gone[stage]} ended before it began this: see harness.logs"
            states[stage] = StageState("waiting", why)
    return states


def _unfinished(store: Store, stage: str, scheduler: Scheduler) -> StageState | None:
    claim = look(store.folder(stage))
    if claim is not None and claim.live:
        beat = f"heartbeat {claim.age:.0f} s ago"
        if (
            scheduler.asked
            and not claim.job.startswith("local-")
            and claim.job not in scheduler.jobs
            and claim.age > LAG_SECONDS
        ):
            why = f"{beat} by job {claim.job}, which SLURM does not know: it is taken over when "
            return StageState("disputed", f"{why}silent for {STALE_SECONDS:.0f} s", job=claim.job)
        return StageState("running", f"job {claim.job}, {beat}", job=claim.job)
    word = scheduler.jobs.get(claim.job) if claim is not None else None
    if claim is not None and not claim.dead and word is not None and word.state == "RUNNING":
        why = f"job {claim.job} is RUNNING and silent for {claim.age:.0f} s: see harness.logs, and "
        return StageState("disputed", f"{why}scancel it if it hangs", job=claim.job)
    failures = store.failures(stage)
    if failure.blocks(failures):
        last = failures[-1]
        return StageState("failed", f"{last['class']}: {last['message']}")
    if failures and failures[-1].get("class") not in failure.FREE:
        last = failures[-1]
        return StageState("waiting", f"{AFTER}{last.get('class')}: {last.get('message')}")
    return StageState("waiting", "stopped, goes on from its last step") if claim else None
