"""The record of the jobs that were submitted for stages, and of those that SLURM still has.

A sweep's `jobs.jsonl` gets a line before each submission: the name of the job, which is unique, and
the stages of each element of its array. A second line with the job's id follows the submission.
SLURM's queue is searched for names, not for ids, for two reasons: a controller that lost its state
uses ids again, and a launch that is killed after its submission never wrote the id.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from harness.cluster import slurm
from harness.cluster.slurm import QueuedJob, SlurmDown
from harness.errors import UserError
from harness.files import append_line, make_folder
from harness.store.claims import Claim, ClaimLost, try_claim
from harness.store.records import Record, read_lines
from harness.store.store import Store

LOCK_SECONDS = 300.0
JobId = Annotated[str, Field(pattern="^[0-9]+$", max_length=20)]
GAVE_UP = "gave-up"
"""Name of a file in a submission's folder. If it exists, its jobs must end; its text says why."""


@dataclass(frozen=True)
class Scheduler:
    """What SLURM knows of the jobs of one store.

    `stages`: for each stage that a queued job holds, the job's id and its entry in the queue.
    `jobs`: this user's queued jobs by id. `last_jobs`: for each other stage, the id of the last job
    that had it. `was_queried`: False where nothing was ever submitted or squeue is not installed.
    """

    stages: Mapping[str, tuple[str, QueuedJob]] = field(default_factory=dict)
    jobs: Mapping[str, QueuedJob] = field(default_factory=dict)
    last_jobs: Mapping[str, str] = field(default_factory=dict)
    was_queried: bool = False

    def stages_by_job(self) -> dict[str, list[str]]:
        """Return the stages of every queued job."""
        stages_of: dict[str, list[str]] = {}
        for stage, (job, _) in self.stages.items():
            stages_of.setdefault(job, []).append(stage)
        return stages_of


class _Line(Record):
    """A line of `jobs.jsonl`, as `record_submission` or `record_job_id` writes it."""

    name: str
    parts: list[list[str]] | None = None  # with `folder`, which starts at the store
    folder: str | None = None
    job: JobId | None = None


def record_submission(
    sweep_folder: Path, name: str, parts: Sequence[Sequence[str]], folder: Path
) -> None:
    """Append, before a submission, the job's name, its elements' stages and its log folder."""
    store = Store(sweep_folder.parent.parent)
    record = {"parts": [list(part) for part in parts], "folder": store.relative(folder)}
    append_line(sweep_folder / "jobs.jsonl", {"name": name, **record, "time": time.time()})


def record_job_id(sweep_folder: Path, name: str, job: str) -> None:
    """Append, after a submission, the id that SLURM gave the job."""
    append_line(sweep_folder / "jobs.jsonl", {"name": name, "job": job})


def read_records(store: Path, sweep: str = "*") -> list[dict[str, Any]]:
    """Return the valid records of `jobs.jsonl`, of one sweep or of all sweeps of a store.

    Their folders are absolute paths in the store.
    """
    records = []
    for path in sorted(store.glob(f"sweeps/{sweep}/jobs.jsonl")):
        for record in read_lines(path, _Line):
            folder = Store(store).own_log(record.get("folder"))
            if folder is not None and record.get("parts") is not None:
                records.append({**record, "folder": folder})
            elif record.get("job") is not None and "parts" not in record:
                records.append(record)
    return records


def _ids_by_name(records: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return the id of each job, by its name."""
    return {record["name"]: record["job"] for record in records if "job" in record}


def query_scheduler(store: Path, heartbeat: Callable[[], None] | None = None) -> Scheduler:
    """Return what SLURM's queue holds of a store; squeue runs only where jobs were submitted.

    With `heartbeat`, the query is repeated for a while if the controller is down, and `heartbeat`
    is called meanwhile. Raises UserError when the controller does not answer.
    """
    records = read_records(store)
    submissions = {record["name"]: record for record in records if "parts" in record}
    if not submissions:
        return Scheduler()
    try:
        jobs = slurm.queue() if heartbeat is None else slurm.until_up(slurm.queue, heartbeat)
    except (SlurmDown, RuntimeError) as error:
        raise UserError(
            f"SLURM does not answer ({error}), so what it has queued is unknown: try again when "
            "its controller is back"
        ) from error
    if jobs is None:
        return Scheduler()
    stages: dict[str, tuple[str, QueuedJob]] = {}
    gave_up: dict[str, bool] = {}  # jobs of such a submission end as soon as they begin
    for job, entry in jobs.items():
        if entry.name not in submissions:
            continue
        submission = submissions[entry.name]
        if entry.name not in gave_up:
            gave_up[entry.name] = (submission["folder"] / GAVE_UP).exists()
        if gave_up[entry.name]:
            continue
        element = job.partition("_")[2]
        number = int(element) if element.isdecimal() else 0
        for part in submission["parts"][number : number + 1]:
            stages.update(dict.fromkeys(part, (job, entry)))
    last_jobs: dict[str, str] = {}
    for name, job in _ids_by_name(records).items():
        for part in submissions[name]["parts"] if name in submissions else []:
            last_jobs.update(dict.fromkeys(part, job))
    last_jobs = {stage: job for stage, job in last_jobs.items() if stage not in stages}
    return Scheduler(stages, jobs, last_jobs, was_queried=True)


def last_logs(store: Path, stages: Sequence[str]) -> dict[str, tuple[str, Path]]:
    """Return, for each stage, the last job that had it and the log of that job's first task."""
    records = read_records(store)
    ids = _ids_by_name(records)
    requested = set(stages)
    logs: dict[str, tuple[str, Path]] = {}
    for record in records:
        if "parts" not in record or record["name"] not in ids:
            continue
        for number, part in enumerate(record["parts"]):
            element = f"_{number}" if len(record["parts"]) > 1 else ""
            job = ids[record["name"]] + element
            for stage in requested.intersection(part):
                log = Store(store).own_log(record["folder"] / f"{job}_0_log.out")
                if log is not None:
                    logs[stage] = job, log
    return logs


@contextlib.contextmanager
def submission_lock(store: Path) -> Iterator[Claim]:
    """Hold the lock that a launch needs to look at SLURM's queue and submit to it.

    If two launches run at the same time, the second waits, and then sees the jobs of the first.
    Raises UserError after five minutes.
    """
    folder = make_folder(store / "sweeps")
    deadline = time.monotonic() + LOCK_SECONDS
    while (claim := try_claim(folder, "launch")) is None:
        if time.monotonic() > deadline:
            raise UserError(
                f"another launch has been queueing jobs of {store} for {LOCK_SECONDS:.0f} s "
                f"({folder / 'claim'}): wait for it, or end it"
            )
        time.sleep(0.2)
    try:
        yield claim
    except ClaimLost as lost:
        raise UserError(
            f"this launch did not show a heartbeat for too long and another took its lock ({lost})"
            ": launch again, to queue what neither has queued"
        ) from lost
    finally:
        claim.release()
