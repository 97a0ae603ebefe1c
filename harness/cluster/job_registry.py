"""Record which jobs were submitted for which stages, and find those that are still in the queue.

A sweep's `jobs.jsonl` gets a line before each submission: the name of the job, which is unique, and
the stages of each element of its array. A second line with the job's id follows the submission.
SLURM's queue is searched for names, not for ids, for two reasons: a controller that lost its state
uses ids again, and a launch that is killed after its submission never wrote the id.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from harness.cluster import slurm
from harness.cluster.slurm import QueuedJob, SlurmDown
from harness.errors import UserError
from harness.files import Damaged, append_line, make_folder
from harness.store.claims import Claim, ClaimLost, try_claim
from harness.store.records import LONGEST, Record, read_bytes, read_lines
from harness.store.store import Store

LOCK_SECONDS = 300.0
JobId = Annotated[str, Field(pattern="^[0-9]+(_[0-9]+)?$", max_length=30)]
ENDED_EARLY = "ended before it began this: see harness.logs"
STOPPED = "stopped while it trained this"
CANCELLED = "was cancelled"
GAVE_UP = "gave-up"
"""Name of a file in a submission's folder. If it exists, its jobs must end; its text says why."""


@dataclass(frozen=True)
class Scheduler:
    """What SLURM knows of the jobs of one store.

    `stages`: for each stage that a queued job holds, the job's id and its entry in the queue.
    `stuck`: the same for jobs that can never start. `jobs`: this user's queued jobs by id. `ended`:
    for each other stage that was submitted, a sentence about its last job.
    `was_queried`: False if SLURM's queue was not read, because no unfinished stage was submitted,
    squeue is not installed, or SLURM did not answer. `problem`: why SLURM did not answer, or ''.
    """

    stages: Mapping[str, tuple[str, QueuedJob]] = field(default_factory=dict)
    stuck: Mapping[str, tuple[str, QueuedJob]] = field(default_factory=dict)
    jobs: Mapping[str, QueuedJob] = field(default_factory=dict)
    ended: Mapping[str, str] = field(default_factory=dict)
    was_queried: bool = False
    problem: str = ""

    def stages_by_job(self) -> dict[str, list[str]]:
        """Return the stages of every queued job."""
        stages_of: dict[str, list[str]] = {}
        for stage, (job, _) in {**self.stuck, **self.stages}.items():
            stages_of.setdefault(job, []).append(stage)
        return stages_of


class _Line(Record):
    """A line of `jobs.jsonl`, as one of the functions below writes it."""

    name: str
    parts: list[list[str]] | None = None  # the stages of each element of the job's array
    folder: str | None = None  # of the submission, relative to the store
    inode: int | None = None  # of the sweep's folder
    job: JobId | None = None
    cancelled: list[JobId] | None = None


def record_submission(sweep_folder: Path, parts: Sequence[Sequence[str]], folder: Path) -> str:
    """Append, before a submission, its elements' stages and its log folder; return the job's name.

    The name follows from the folders, so that a record that came from elsewhere cannot name another
    job of this user, which `cancel` would end.
    """
    store, name = Store(sweep_folder.parent.parent), _job_name(sweep_folder.name, folder)
    record = {
        "parts": [list(part) for part in parts],
        "folder": store.relative(folder),
        "inode": sweep_folder.stat().st_ino,
    }
    append_line(sweep_folder / "jobs.jsonl", {"name": name, **record, "time": time.time()})
    return name


def _job_name(sweep: str, folder: Path) -> str:
    """Return the name of the job of a submission: the sweep, the launch's random digits, a number.

    `folder` is that of the submission, `logs/<time>-<digits>/<number>`.
    """
    return f"{sweep}-{folder.parent.name.rpartition('-')[2]}-{folder.name}"


def record_job_id(sweep_folder: Path, name: str, job: str) -> None:
    """Append, after a submission, the id that SLURM gave the job."""
    append_line(sweep_folder / "jobs.jsonl", {"name": name, "job": job})


def record_cancelled(sweep_folder: Path, jobs: Mapping[str, QueuedJob]) -> None:
    """Append that the user cancelled these jobs, so that `status` can tell it from a failure."""
    ids_by_name: dict[str, list[str]] = {}
    for job, entry in jobs.items():
        ids_by_name.setdefault(entry.name, []).append(job)
    for name, ids in ids_by_name.items():
        append_line(make_folder(sweep_folder) / "jobs.jsonl", {"name": name, "cancelled": ids})


def read_records(store: Path, sweep: str = "*") -> list[dict[str, Any]]:
    """Return the valid records of `jobs.jsonl`, of one sweep or of all sweeps of a store.

    Their folders are absolute paths in the store. `of_copy` is True if the store was copied after
    the submission, so that the jobs belong to the original store.
    """
    records = []
    for path in sorted(store.glob(f"sweeps/{sweep}/jobs.jsonl")):
        names = set()
        for record in read_lines(path, _Line):
            folder = Store(store).own_log(record.get("folder"))
            if folder is not None and record.get("parts") is not None:
                if record["name"] == _job_name(path.parent.name, folder):
                    names.add(record["name"])
                    records.append({**record, "folder": folder, "of_copy": _is_copy(path, record)})
            elif record["name"] in names and (record.get("job") or record.get("cancelled")):
                records.append(record)
    return records


def _is_copy(path: Path, record: Mapping[str, Any]) -> bool:
    """Return whether `record` was written in another folder and copied to that of `path`.

    A store that is renamed, or mounted at another path, keeps its inodes.
    """
    return record.get("inode") not in (None, path.parent.stat().st_ino)


def _submitted_parts(
    records: Sequence[Mapping[str, Any]],
) -> Iterator[tuple[str, list[str], Path]]:
    """Yield the job's id, the stages and the folder of each array element that SLURM accepted."""
    ids = {record["name"]: record["job"] for record in records if "job" in record}
    for record in records:
        if "parts" in record and record["name"] in ids:
            job, parts = ids[record["name"]], record["parts"]
            for number, part in enumerate(parts):
                yield f"{job}_{number}" if len(parts) > 1 else job, part, record["folder"]


def query_scheduler(
    store: Path,
    unfinished: Collection[str] | None,
    heartbeat: Callable[[], None] | None = None,
    must_answer: bool = True,
) -> Scheduler:
    """Return what SLURM knows of the `unfinished` stages that were submitted from this store.

    If none of them was submitted, SLURM is not queried, because the store's other sweeps may have
    used a controller that no longer exists. With `unfinished=None` it is queried about all jobs of
    the store. With `heartbeat`, the query is repeated for a while if the controller is down, and
    `heartbeat` is called meanwhile. When the controller does not answer, this raises UserError or,
    with `must_answer=False`, prints a note and returns a Scheduler that has the `problem`.
    """
    records = read_records(store)
    submissions = {r["name"]: r for r in records if "parts" in r and not r["of_copy"]}
    submitted = {s for record in submissions.values() for part in record["parts"] for s in part}
    if submitted.isdisjoint(submitted if unfinished is None else unfinished):
        return Scheduler()
    try:
        jobs = slurm.queue() if heartbeat is None else slurm.until_up(slurm.queue, heartbeat)
    except (SlurmDown, RuntimeError) as error:
        problem = f"SLURM does not answer ({error}), so what it has queued is unknown"
        if must_answer:
            raise UserError(f"{problem}: try again when its controller is back") from error
        print(f"note: {problem}", file=sys.stderr)
        return Scheduler(problem=problem)
    if jobs is None:
        return Scheduler()
    stages: dict[str, tuple[str, QueuedJob]] = {}
    stuck: dict[str, tuple[str, QueuedJob]] = {}
    has_given_up = functools.cache(lambda folder: reason_to_give_up(folder) is not None)
    for job, entry in jobs.items():
        record = submissions.get(entry.name)
        # a job of a submission that gave up exits at once, so it does not hold its stages
        if record is None or has_given_up(record["folder"]):
            continue
        element = job.partition("_")[2]
        index = int(element) if element.isdecimal() else 0
        for part in record["parts"][index : index + 1]:
            jobs_by_stage = stuck if slurm.never_starts(entry.reason) else stages
            jobs_by_stage.update(dict.fromkeys(part, (job, entry)))
    others = set(unfinished or ()) - set(stages)
    ended = _why_ended(Store(store), records, others, dict(stuck.values()))
    return Scheduler(stages, stuck, jobs, ended, was_queried=True)


def _why_ended(
    store: Store,
    records: Sequence[Mapping[str, Any]],
    stages: Collection[str],
    stuck: Mapping[str, QueuedJob],
) -> dict[str, str]:
    """Return, for each of `stages` that was submitted, a sentence about how its last job ended."""
    last = {
        stage: (job, folder)
        for job, part, folder in _submitted_parts(records)
        for stage in part
        if stage in stages
    }
    cancelled = {job for record in records for job in record.get("cancelled", ())}
    unexplained = {job for job, _ in last.values()} - cancelled - set(stuck)
    states = slurm.final_states(unexplained) if unexplained else {}
    begun = store.ids() if last else set()
    sentences = {}
    for stage, (job, folder) in last.items():
        if job in stuck:
            sentence = (
                f"can never start ({stuck[job].reason}): launch cancels it and queues another"
            )
        elif job in cancelled or states.get(job, "").startswith("CANCELLED"):
            sentence = CANCELLED
        elif reason := reason_to_give_up(folder):
            sentence = f"ended with all jobs of its launch: {reason}"
        elif stage in begun and store.last_attempt(stage).get("job") == job:
            sentence = STOPPED
        else:
            sentence = ENDED_EARLY
        sentences[stage] = f"job {job} {sentence}"
    return sentences


def reason_to_give_up(folder: Path) -> str | None:
    """Return why no job of the submission in `folder` may go on, or None where they may."""
    try:
        return read_bytes(folder / GAVE_UP, longest=LONGEST).decode(errors="replace")
    except (OSError, Damaged):
        return None


def last_logs(store: Path, stages: Sequence[str]) -> dict[str, tuple[str, Path]]:
    """Return, for each stage, the last job that had it and the log of that job's first task."""
    requested = set(stages)
    logs: dict[str, tuple[str, Path]] = {}
    for job, part, folder in _submitted_parts(read_records(store)):
        if stages_of_job := requested.intersection(part):
            log = Store(store).own_log(folder / f"{job}_0_log.out")
            if log is not None:
                logs.update(dict.fromkeys(stages_of_job, (job, log)))
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
