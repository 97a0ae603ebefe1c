"""From what a store lacks to jobs in SLURM's queue."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.cluster import failure, queued, slurm
from harness.cluster import slurm_jobs as arrays
from harness.cluster.queued import Scheduler
from harness.cluster.slurm import SlurmDown
from harness.cluster.slurm_jobs import Queue
from harness.cluster_schema import ClusterConfig
from harness.config import Launch
from harness.errors import UserError
from harness.schema import RunConfig
from harness.store.claims import Claim, look, try_claim
from harness.store.provenance import commit
from harness.store.store import Store
from harness.sweep import cost
from harness.sweep.jobs import device_seconds, make_chains
from harness.sweep.plan import Plan
from harness.sweep.states import StageState

HELD = "requeued held"
UNFIT = ":%\\\n"  # in a path that is a PYTHONPATH and that SLURM expands (%j) for its log files


def require_sbatch(cluster: ClusterConfig) -> None:
    """Raise UserError where jobs cannot be submitted from."""
    absent = [name for name in ("sbatch", "srun", "squeue") if shutil.which(name) is None]
    if absent:
        raise UserError(
            f"cluster={cluster.name} needs SLURM and {', '.join(absent)} is not installed here: "
            "launch from a login node, or with cluster=local"
        )


def release(scheduler: Scheduler) -> None:
    """Let go of jobs that SLURM holds because a node failed to start them: for ever, otherwise.

    Says, too, which are ending: a job that was just cancelled still counts as one that is there.
    """
    ending = {job for job, word in scheduler.stages.values() if word.state == "COMPLETING"}
    if ending:
        print(f"note: {len(ending):,} jobs are ending; launch again in a minute for what they left")
    for job in {job for job, word in scheduler.stages.values() if HELD in word.reason}:
        try:
            slurm.call("scontrol", "release", job)
        except (FileNotFoundError, RuntimeError, SlurmDown) as error:
            print(f"note: job {job} is held ({error}): scontrol release {job}")


def reap(store: Store, stages: Sequence[str], scheduler: Scheduler) -> None:
    """Note the losses that no worker has met yet: they decide how much memory is asked for."""
    for stage in stages:
        folder = store.folder(stage)
        seen = look(folder) if folder.exists() else None
        if seen is None or seen.live:
            continue
        claim = try_claim(folder, "launch")
        if claim is not None:
            if not seen.job.startswith("local-"):
                failure.record_lost(store, stage, seen, "launch")
            claim.release()
    _reap_unborn(store, stages, scheduler)


def _reap_unborn(store: Store, stages: Sequence[str], scheduler: Scheduler) -> None:
    """Jobs that ran out of memory before they could claim a stage left nothing but their log."""
    first: dict[str, tuple[str, Path]] = {}
    for stage, (job, log) in queued.last_logs(store.root, stages).items():
        if job not in scheduler.jobs:
            first.setdefault(job, (stage, log))
    for job, (stage, log) in first.items():
        said = failure.memory_complaint(log)
        if said and all(record.get("job") != job for record in store.failures(stage)):
            message = f"job {job} ran out of host memory ({said}); log in {log}"
            record = {"class": "host_memory", "message": message, "job": job}
            store.record_failure(stage, {**record, "step": store.newest_step(stage)})


def submit(
    launch: Launch,
    plan: Plan,
    store: Store,
    left: Sequence[str],
    states: Mapping[str, StageState],
    scheduler: Scheduler,
    lock: Claim,
) -> Queue:
    """Queue jobs for the stages `left`."""
    if unfit := set(UNFIT) & set(str(store.root)):
        raise UserError(
            f"the store {store.root} has {' '.join(map(repr, sorted(unfit)))} in its path, which "
            "SLURM does not keep as it is: choose another with store=PATH; nothing was queued"
        )
    sweeps = store.root / "sweeps"
    if sweeps.resolve() != store.root.resolve() / "sweeps":
        raise UserError(
            f"{sweeps} is a link to another place, where the next launch would not look for what "
            "this one has queued: move the whole store there (store=PATH); nothing was queued"
        )
    ready = [stage for stage in left if not failure.blocks(store.failures(stage))]
    run = _with_whole_paths(launch.run)
    held = {
        stage: state.job
        for stage, state in states.items()
        if state.name in ("running", "queued") and state.job in scheduler.jobs
    }
    groups = make_chains(
        plan,
        ready,
        launch.cluster,
        run,
        device_seconds(cost.seconds_per_epoch(plan, states, store.root), plan),
        lambda stage: failure.memory_factor(store.failures(stage)),
        held,
        cost.read_measurements(store.root, plan),
    )
    if not groups:
        return Queue()
    submitter = arrays.Submitter(store, launch.grid.name, plan.stages, lock.heartbeat)
    if (commit() or "").endswith("+changes"):
        print(f"jobs run this code with its uncommitted changes: a copy in {submitter.snapshot}")
    return submitter.submit(groups)


def _with_whole_paths(run: RunConfig) -> RunConfig:
    """Jobs start in other folders."""
    if run.data_root is None:
        return run
    return run.model_copy(update={"data_root": str(Path(run.data_root).expanduser().absolute())})
