"""What a worker writes to the store when the training of a stage has ended, well or not."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from harness.cluster import failure, slurm
from harness.cluster.submission import JobContext, Submission, trip_breaker
from harness.files import CannotWrite, atomic_write
from harness.store.claims import Claim
from harness.store.correct import packed
from harness.store.evaluations import write_evaluation
from harness.store.store import Store
from harness.train import Outcome, checkpoint

OTHER_RANK_SECONDS = 0.5
LIMIT_MARGIN_SECONDS = 60.0  # SLURM may send the signal of a time limit so many seconds early


def write_result(context: JobContext, outcome: Outcome, claim: Claim) -> None:
    """Write the files of a finished stage, its result last, then delete checkpoints not needed.

    Raises ClaimLost when another worker has taken the stage over, and CannotWrite.
    """
    stage, store = outcome.stage_id, context.store
    folder = store.folder(stage)
    if outcome.correct is not None:
        atomic_write(folder / "correct.npz", packed(outcome.correct, outcome.classes))
    store.finish(stage, claim, {"status": outcome.status, **(outcome.result or {})})
    for evaluation, evaluated in outcome.evaluations.items():
        record = {**evaluated.record, "weights_sha256": (outcome.result or {})["weights_sha256"]}
        write_evaluation(store, stage, evaluation, record, evaluated.bits)
    configs = context.submission.stages.values()
    parents = {config.parent for config in configs}
    continued = {config.continues.stage for config in configs if config.continues is not None}
    # after the result: if the disk is full, training can resume
    keeps_last = stage in continued and outcome.status == "done"
    checkpoint.drop_steps(folder, keeps_last)
    if context.submission.run.keep_weights == "needed" and stage not in parents:
        (folder / "checkpoint" / "final.pt").unlink(missing_ok=True)
    print(f"finished {stage} {outcome.status}", flush=True)


def record_stop(context: JobContext, stage: str) -> None:
    """Record that a SLURM job was stopped: by its time limit, or else by a preemption."""
    seconds_left = slurm.seconds_left()
    margin = context.submission.cluster.slurm.signal_seconds + LIMIT_MARGIN_SECONDS
    is_limit = seconds_left is not None and seconds_left < margin
    record = {
        "class": "time_limit" if is_limit else "preempted",
        "message": f"job {context.job} was stopped by {context.stop.signal}",
        "job": context.job,
        "attempt": context.attempt,
        "step": context.store.newest_step(stage),
    }
    with contextlib.suppress(CannotWrite):  # without it, only the count of stops is too low
        context.store.record_failure(stage, record)


def record_failure(
    context: JobContext, gang: list[str], error: Exception, micro_batch_size: int | None
) -> bool:
    """Record why the stages of a gang failed; returns whether any of them is tried again.

    Any rank may call this, because rank 0 may never learn of an error on another rank. After a
    broken connection all ranks fail at about the same time: only the first one writes records, and
    it sleeps before the gang is tried again; the others return without a record.
    """
    store = context.store
    where = {"job": context.job, "attempt": context.attempt, "rank": context.world.rank}
    kind = failure.classify(error)
    if len(gang) > 1 and kind != "transport":  # training each alone shows which one failed
        record = {**failure.describe(error, **where), "class": "gang", "again": True}
        for stage in gang:
            store.record_failure(stage, record)
        return True
    if kind == "transport":
        time.sleep(OTHER_RANK_SECONDS)  # the rank that failed first knows the reason
        failures = store.failures(gang[0])
        if failures and all(failures[-1].get(key) == where[key] for key in ("job", "attempt")):
            return any(not failure.blocks(store.failures(stage)) for stage in gang)
    is_retried = False
    for stage in gang:
        record = failure.describe(error, **where, step=store.newest_step(stage))
        if kind == "out_of_memory":
            config = context.submission.stages[stage]
            used = micro_batch_size or config.recipe.batch_size // context.world.size
            if used > 1:
                record |= {"again": True, "micro_batch_size": used // 2}
        store.record_failure(stage, record)
        if not failure.blocks(store.failures(stage)):
            is_retried = True
        elif context.in_slurm:
            trip_breaker(context.submission, context.folder, record)
    print(record["traceback"], flush=True)
    if is_retried:
        time.sleep(failure.pause_seconds(store.failures(gang[0])))
    return is_retried


def record_failed_start(submission: Submission, part: int, folder: Path, error: Exception) -> None:
    """Record in the job's first unfinished stage that the job could not begin.

    The reason is a GPU that does not answer, or ranks that do not connect.
    """
    if slurm.this_job() is None or os.environ.get("SLURM_PROCID", "0") != "0":
        return
    store = Store(submission.store)
    stages = [stage for gang in submission.parts[part] for stage in gang]
    stage = next((stage for stage in stages if not store.is_done(stage)), None)
    if stage is not None:
        store.prepare(stage, submission.stages[stage])
        record = failure.describe(error, job=slurm.this_job(), attempt=slurm.restarts(), step=0)
        store.record_failure(stage, {**record, "class": "start"})
        trip_breaker(submission, folder, record)
