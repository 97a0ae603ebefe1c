"""The state of a stage, by one rule for `status`, `launch`, its progress and the workers.

A result file decides. Without one, a live heartbeat does, then failures, then the parent's state,
then SLURM's queue. Where heartbeat and queue contradict each other for longer than their normal
delay, the stage is "disputed".
"""

from __future__ import annotations

from collections.abc import Mapping

from harness.cluster import failure
from harness.cluster.job_registry import Scheduler
from harness.errors import UserError
from harness.files import Damaged
from harness.schema import StageConfig
from harness.states import StageState
from harness.store.claims import STALE_SECONDS, ClaimState, look
from harness.store.store import Store

TRIED_BEFORE = "tried before, "
CONTINUES = "continues from its last step"
LAG_SECONDS = 30.0
"""squeue may be this late: it may lack a job that has just begun, or show one that has ended."""
NO_SCHEDULER = Scheduler()


def stage_states(
    store: Store,
    stages: Mapping[str, StageConfig],
    scheduler: Scheduler = NO_SCHEDULER,
    known: Mapping[str, StageState] | None = None,
) -> dict[str, StageState]:
    """Return the state of every stage; those that are `known` are not read again.

    `stages` has parents before their children.
    """
    begun = store.ids()
    states = dict(known or {})
    for stage, config in stages.items():
        if stage not in states:
            origin = states[config.origin] if config.origin else None
            has_folder = stage in begun
            states[stage] = stage_state(store, stage, config, origin, scheduler, has_folder)
    return states


def stage_state(
    store: Store,
    stage: str,
    config: StageConfig,
    origin: StageState | None,
    scheduler: Scheduler = NO_SCHEDULER,
    has_folder: bool = True,
) -> StageState:
    """Return the state of one stage. `origin` is that of the stage it starts from, if it has one.

    `has_folder=False` says that the store has nothing of the stage, so that no file is looked for.
    """
    if has_folder and (state := _ended(store, stage)) is not None:
        return state
    claim = look(store.folder(stage)) if has_folder else None
    failures = store.failures(stage) if has_folder else []
    last = failures[-1] if failures else {}
    if claim is not None and (state := _claimed(claim, scheduler)) is not None:
        return state
    if failure.blocks(failures):
        return StageState("failed", f"{last['class']}: {last['message']}")
    if origin is not None and origin.name in ("failed", "diverged"):
        origin_name = f"its parent {config.origin}"
        if config.continues is not None:
            origin_name = f"stage {config.origin}, which it continues,"
        return StageState(origin.name, f"{origin_name} {origin.name}")
    if stage in scheduler.stages:
        job, entry = scheduler.stages[stage]
        return StageState("queued", f"job {job} {entry.state} ({entry.reason})", job=job)
    why = ""
    if failures and last.get("class") not in failure.FREE:
        why = f"{TRIED_BEFORE}{last.get('class')}: {last.get('message')}"
    elif claim is not None:
        why = f"stopped, {CONTINUES}"
    elif stage in scheduler.ended:
        why = f"{TRIED_BEFORE}{scheduler.ended[stage]}"
        if has_folder and store.newest_step(stage) > 0:
            why = f"{why}; {CONTINUES}"
    return StageState("waiting", why)


def _ended(store: Store, stage: str) -> StageState | None:
    """Return the state of a stage that has a result file, or None where there is no such file."""
    try:
        result = store.result(stage)
    except FileNotFoundError:
        return None
    except Damaged as error:
        return StageState("damaged", str(error))
    except PermissionError as error:
        raise UserError(
            f"{error.filename} cannot be read: give read permission on the store {store.root}, or "
            "choose another with store=PATH"
        ) from error
    return StageState(result["status"], result=result)


def _claimed(claim: ClaimState, scheduler: Scheduler) -> StageState | None:
    """Return the state of a stage whose claim is held, or None where its owner is gone."""
    job, entry = claim.job, scheduler.jobs.get(claim.job)
    if claim.live:
        heartbeat = f"heartbeat {claim.age:.0f} s ago"
        is_unknown = scheduler.was_queried and not job.startswith("local-") and entry is None
        if not is_unknown or claim.age <= LAG_SECONDS:
            return StageState("running", f"job {job}, {heartbeat}", job=job)
        why = f"{heartbeat} by job {job}, which SLURM does not know: it is taken over when "
        return StageState("disputed", f"{why}silent for {STALE_SECONDS:.0f} s", job=job)
    if claim.dead or entry is None or entry.state != "RUNNING":
        return None
    why = f"job {job} is RUNNING and silent for {claim.age:.0f} s: see harness.logs, and "
    return StageState("disputed", f"{why}scancel it if it hangs", job=job)
