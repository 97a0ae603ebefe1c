"""Submit what a store lacks to SLURM, after recording what became of earlier jobs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.cluster import decision, failure, job_registry, slurm
from harness.cluster.job_registry import Scheduler
from harness.cluster.launch_folder import take_code
from harness.cluster.settlement import decision_name
from harness.cluster.slurm import SlurmDown
from harness.cluster.slurm_jobs import Submitted, Submitter, submit_after
from harness.cluster.submission import Submission
from harness.cluster.sweep_view import Sweep
from harness.cluster.work import Work
from harness.config import Launch
from harness.states import UNDER_WAY, StageState
from harness.store.claims import Claim, look, try_claim
from harness.store.store import Store
from harness.sweep import cost
from harness.sweep.jobs import device_seconds, make_jobs
from harness.sweep.plan import Plan


def release_held(scheduler: Scheduler) -> None:
    """Release jobs that SLURM holds because a node failed to start them; they would stay held.

    Also print why other jobs wait, and how many are just ending: after scancel they still count as
    queued.
    """
    ours = dict([*scheduler.stages.values(), *scheduler.stuck.values()])
    ending = [job for job, entry in ours.items() if entry.state == "COMPLETING"]
    if ending:
        print(
            f"note: {len(ending):,} jobs are ending; launch again in a minute to queue their stages"
        )
    for sentence in slurm.describe_waiting(ours):
        print(f"note: {sentence}")
    for job in [job for job, entry in ours.items() if entry.reason in slurm.HELD]:
        try:
            slurm.call("scontrol", "release", job)
        except (FileNotFoundError, RuntimeError, SlurmDown) as error:
            print(f"note: job {job} is held ({error}): scontrol release {job}")


def record_losses(store: Store, stages: Sequence[str], scheduler: Scheduler) -> None:
    """Record the failures of jobs that ended without recording one.

    The failures of a stage decide how much memory its next job gets.
    """
    for stage in stages:
        folder = store.folder(stage)
        owner = look(folder) if folder.exists() else None
        if owner is None or owner.live:
            continue
        claim = try_claim(folder, "launch")
        if claim is not None:
            if not owner.job.startswith("local-"):
                failure.record_lost(store, stage, owner, "launch")
            claim.release()
    _record_jobs_without_claim(store, stages, scheduler)


def _record_jobs_without_claim(store: Store, stages: Sequence[str], scheduler: Scheduler) -> None:
    """Record jobs that ran out of host memory before they claimed a stage, from their logs."""
    first_stage: dict[str, tuple[str, Path]] = {}
    for stage, (job, log) in job_registry.last_logs(store.root, stages).items():
        if job not in scheduler.jobs:
            first_stage.setdefault(job, (stage, log))
    for job, (stage, log) in first_stage.items():
        memory = failure.host_memory_message(log)
        if memory and all(record.get("job") != job for record in store.failures(stage)):
            message = f"job {job} ran out of host memory ({memory}); log in {log}"
            record = {"class": "host_memory", "message": message, "job": job}
            store.record_failure(stage, {**record, "step": store.newest_step(stage)})


def submit(
    launch: Launch,
    plan: Plan,
    store: Store,
    todo: Sequence[str],
    states: Mapping[str, StageState],
    scheduler: Scheduler,
    lock: Claim,
) -> Submitted:
    """Submit jobs for the stages `todo`, and return what was queued."""
    ready = [stage for stage in todo if not failure.blocks(store.failures(stage))]
    job_of_stage = {
        stage: state.job
        for stage, state in states.items()
        if state.name in UNDER_WAY and state.job in scheduler.jobs
    }
    groups = make_jobs(
        plan,
        ready,
        launch.cluster,
        launch.run,
        device_seconds(cost.seconds_per_epoch(plan, states, store.root), plan),
        lambda stage: failure.memory_factor(store.failures(stage)),
        job_of_stage,
        cost.read_measurements(store.root, plan),
    )
    if not groups:
        return Submitted()
    targets = launch.targets_of(plan, ready)
    submitter = Submitter(store, launch.grid.name, plan.stages, Work(), lock.heartbeat, targets)
    submitted = submitter.submit(groups)
    if stuck := {job for job, _ in scheduler.stuck.values()}:
        slurm.cancel(list(stuck))
        print(f"cancelled {len(stuck):,} jobs that could never start")
    return submitted


def queue_decision(
    sweep: Sweep,
    words: Sequence[str],
    submitted: Submitted,
    work: Callable[..., Any],
    heartbeat: Callable[[], None],
) -> str:
    """Return the id of the one queued job that decides the next round; queue it if there is none.

    One that was queued with other settings, such as another budget, is cancelled. Returns '' where
    no job of the present round is queued, which it could wait for. Raises Full or Refused.
    """
    jobs = {*decision.jobs_of_round(sweep), *submitted.jobs}
    if not jobs:
        return ""
    waiting = decision.waiting(sweep)
    for job, launch_folder in waiting.items():
        if decision.has_settings_of(sweep, launch_folder):
            return job
    slurm.cancel(list(waiting))
    launch, name = sweep.launch, sweep.launch.grid.name
    folder = submitted.folder or take_code(sweep.store.sweep_folder(name))
    decision.write(folder.path, sweep, words)
    cluster, run = decision.job_settings(launch.cluster)
    submission = Submission(
        store=sweep.store.root,
        sweep=name,
        run=run,
        cluster=cluster,
        stages={},
        parts=[[[decision_name(launch, sweep.plan)]]],
        snapshot=folder.code,
        plugins=folder.plugins,
    )
    return submit_after(submission, folder.path / "decision", work, jobs, heartbeat)
