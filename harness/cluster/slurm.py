"""SLURM's commands, each with a deadline: the queue, requeueing, the site's limits, accounting.

Every call has a time limit. A controller that is down raises `SlurmDown`. If a command is not
installed, the functions return what their docstrings say for a missing answer.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from harness.errors import UserError

Answer = TypeVar("Answer")
CALL_SECONDS = 30.0
DOWN_SECONDS = 120.0
"""How long a request is repeated while the controller does not answer."""
REQUEUE_TRIES = 5
EXECUTING = ("RUNNING", "SIGNALING", "STOPPED", "SUSPENDED", "RESIZING")
"""States of a job that has its nodes. SIGNALING: a node has not yet passed a signal on."""
JOBS_PER_CALL = 500  # of scancel
DOWN = (
    "Unable to contact slurm controller", "Connection refused", "Connection timed out",
    "Connection reset", "Socket timed out", "Zero Bytes were transmitted", "in standby mode",
)  # fmt: skip
NEVER = (
    "BadConstraints", "DependencyNeverSatisfied", "PartitionNodeLimit", "PartitionTimeLimit",
    "PartitionConfig", "InvalidAccount", "InvalidQOS", "AccountNotAllowed", "QOSNotAllowed",
    "ReservationDeleted", "MaxMemPerLimit",
)  # fmt: skip
"""SLURM's reasons for which a pending job never starts, unless the site changes its limits.

So it is with limits of a single job (`never_starts`), such as AssocMaxWallDurationPerJobLimit.
"""
HELD = ("launch failed requeued held", "job requeued in held state", "JobHoldMaxRequeue")
"""Reasons for which SLURM holds a job that a node failed to start; `launch` releases it."""
ORDINARY = ("", "None", "Priority", "Resources", "JobArrayTaskLimit", "Dependency", "BeginTime")
"""Reasons for which a pending job waits its turn."""
ADVICE = {
    **dict.fromkeys(HELD, " (launch releases it)"),
    "JobHeldUser": " (you hold it: scontrol release {job}, or cancel it)",
    "JobHeldAdmin": " (an administrator holds it: ask the site)",
    "Assoc": " (a limit of your account: jobs that end, or the site, make room)",
    "QOS": " (a limit of the quality of service: jobs that end, or the site, make room)",
    "ReqNodeNotAvail": " (nodes are down or reserved)",
}
"""What the user may know of other reasons, by how they begin."""
CAUSES = {
    "BadConstraints": "no node has all that it asks for: see cluster.slurm.constraint",
    "PartitionTimeLimit": "lower cluster.timeout_min, or choose another partition",
    "PartitionNodeLimit": "lower cluster.slurm.nodes, or choose another partition",
    "PartitionConfig": "its partition does not allow what it asks for",
    "MaxMemPerLimit": "lower cluster.slurm.mem_gb",
    "InvalidAccount": "set cluster.slurm.account",
    "AccountNotAllowed": "set cluster.slurm.account or cluster.slurm.partition",
    "InvalidQOS": "set cluster.slurm.qos",
    "QOSNotAllowed": "set cluster.slurm.qos or cluster.slurm.partition",
}
"""What to change before the next launch, for some of the reasons in `NEVER`."""
USER_PREFERENCES = ("SQUEUE_", "SACCT_", "SCANCEL_", "SCONTROL_", "SLURM_TIME_FORMAT")
"""Prefixes of variables by which users choose other jobs, columns or forms than requested here."""


class SlurmDown(Exception):
    """The controller did not answer in time; it may be back soon."""


@dataclass(frozen=True)
class QueuedJob:
    """One job, or array element, in SLURM's queue."""

    state: str  # PENDING, RUNNING, ...
    reason: str
    name: str
    start: str = ""  # when SLURM expects it to start, `2026-12-01T03:00:00`, or '' if unknown


def call(*command: str, seconds: float = CALL_SECONDS, stdin: str = "") -> str:
    """Return the output of a command, in which other users' names may be bytes of any encoding.

    Raises SlurmDown, FileNotFoundError where it is not installed, or RuntimeError with its message.
    """
    env = {k: v for k, v in os.environ.items() if not k.startswith(USER_PREFERENCES)}
    try:
        done = subprocess.run(
            command, env=env, input=stdin, capture_output=True, timeout=seconds, check=False,
            encoding="utf-8", errors="replace",
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise SlurmDown(f"{command[0]} did not answer within {seconds:.0f} s") from error
    if done.returncode:
        message = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        if any(text in message for text in DOWN):
            raise SlurmDown(message)
        raise RuntimeError(f"{command[0]}: {message}")
    return done.stdout


def until_up(request: Callable[[], Answer], heartbeat: Callable[[], None]) -> Answer:
    """Return `request()`, repeated while the controller is down; `heartbeat` is called meanwhile.

    Raises UserError after `DOWN_SECONDS`.
    """
    deadline = time.monotonic() + DOWN_SECONDS
    while True:
        try:
            return request()
        except SlurmDown as error:
            if time.monotonic() > deadline:
                raise UserError(
                    f"the SLURM controller did not answer for {DOWN_SECONDS:.0f} s ({error}); "
                    "nothing more was queued: launch again when it is back"
                ) from error
            print("the SLURM controller does not answer, trying again", file=sys.stderr, flush=True)
            heartbeat()
            time.sleep(5.0)


def queue() -> dict[str, QueuedJob] | None:
    """Return this user's jobs by id (`12`, elements as `12_3`), or None without squeue."""
    try:
        text = call("squeue", "--me", "--noheader", "--array", "--format=%i|%T|%r|%S|%j")
    except FileNotFoundError:
        return None
    rows = [row.strip().split("|", 4) for row in text.split("\n")]
    return {
        job: QueuedJob(state, reason, name, start if start != "N/A" else "")
        for job, state, reason, start, name in (row for row in rows if len(row) == 5)
    }


def describe_waiting(jobs: Mapping[str, QueuedJob]) -> list[str]:
    """Return why some of `jobs` wait for more than their turn, and when the next one starts.

    There is a sentence for each reason, and one for the start where SLURM expects one.
    """
    waiting: dict[str, list[str]] = {}
    for job, entry in jobs.items():
        if entry.state == "PENDING" and entry.reason not in ORDINARY:
            waiting.setdefault(entry.reason, []).append(job)
    sentences = []
    for reason, ids in waiting.items():
        advice = next((text for start, text in ADVICE.items() if reason.startswith(start)), "")
        if never_starts(reason):
            cause = f"{CAUSES[reason]}; " if reason in CAUSES else ""
            advice = f" ({cause}such a job never starts: launch cancels it and queues another)"
        sentence = f"{len(ids):,} jobs wait, such as {ids[0]}: {reason}{advice}"
        sentences.append(sentence.replace("{job}", ids[0]))
    starts = [entry.start for entry in jobs.values() if entry.state == "PENDING" and entry.start]
    if starts:
        sentences.append(f"the next job is expected to start at {min(starts)}")
    return sentences


def never_starts(reason: str) -> bool:
    """Return whether a job that waits for this reason never starts, as long as limits stay."""
    return reason in NEVER or "PerJob" in reason or reason.startswith("QOSMin")


def cancel(jobs: Sequence[str]) -> None:
    """Cancel jobs by id. Raises UserError where not all of them were cancelled."""
    for start in range(0, len(jobs), JOBS_PER_CALL):
        try:
            call("scancel", *jobs[start : start + JOBS_PER_CALL])
        except (SlurmDown, RuntimeError, FileNotFoundError) as error:
            raise UserError(
                f"not all jobs were cancelled ({error}): run the same command again"
            ) from error


def cancel_named(name: str) -> None:
    """Cancel every job of this (unique) name."""
    with contextlib.suppress(FileNotFoundError, RuntimeError):
        call("scancel", "--me", f"--name={name}")


def site_settings() -> dict[str, str]:
    """Return SLURM's configuration, as `scontrol` prints it. Raises as `call` does."""
    pairs = [row.partition("=") for row in call("scontrol", "show", "config").split("\n")]
    return {key.strip(): value.strip() for key, _, value in pairs}


@dataclass(frozen=True)
class PartitionLimits:
    """The limits that a partition sets to one job; None where it sets none."""

    name: str
    is_default: bool
    minutes: float | None  # longest time limit
    megabytes: int | None  # most memory of a node


def partitions() -> list[PartitionLimits]:
    """Return the limits of each partition. Raises as `call` does."""
    limits = []
    for row in call("scontrol", "--oneliner", "show", "partition").splitlines():
        fields = dict(pair.partition("=")[::2] for pair in row.split())
        seconds = _seconds(fields.get("MaxTime", ""))
        memory = fields.get("MaxMemPerNode", "")
        limits.append(
            PartitionLimits(
                name=fields.get("PartitionName", ""),
                is_default=fields.get("Default") == "YES",
                minutes=None if seconds is None else seconds / 60,
                megabytes=int(memory) if memory.isdecimal() else None,
            )
        )
    return limits


def largest_array(default: int = 1001) -> int:
    """Return `MaxArraySize`: an array's indices end below it."""
    try:
        size = site_settings().get("MaxArraySize", "")
    except (FileNotFoundError, RuntimeError):
        return default
    return int(size) if size.isdecimal() else default


def this_job() -> str | None:
    """Return the id of the job whose worker this process is: `12`, or `12_3` for an element.

    None for workers of a launch on this machine. Such a launch may itself run inside of a job: that
    job is the user's own, so the harness must not requeue it.
    """
    if os.environ.get("SUBMITIT_EXECUTOR") == "local":
        return None
    array, task = (os.environ.get(f"SLURM_ARRAY_{name}_ID") for name in ("JOB", "TASK"))
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID")


def restarts() -> int:
    """Return how often SLURM has requeued this job."""
    return int(os.environ.get("SLURM_RESTART_COUNT", "0")) if this_job() else 0


def seconds_left() -> float | None:
    """Return the seconds until this job's time limit, or None where SLURM does not tell them."""
    end = os.environ.get("SLURM_JOB_END_TIME", "")
    if end.isdecimal():
        return float(end) - time.time()
    job = this_job()
    try:
        text = call("squeue", "--noheader", "--format=%L", "--jobs", job) if job else ""
    except (FileNotFoundError, RuntimeError, SlurmDown):
        return None
    return _seconds(text.strip())


def _seconds(duration: str) -> float | None:
    """Return the seconds of a duration as SLURM prints it, `1-02:03:04`; None of other texts."""
    match = re.fullmatch(r"(?:(?:(\d+)-)?(\d+):)?(\d+):(\d+)", duration)
    if match is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60.0 + seconds


def is_running(job: str) -> bool:
    """Return whether SLURM lists the job as running: neither cancelled nor being requeued."""
    return call("squeue", "--noheader", "--format=%T", "--jobs", job).strip() in EXECUTING


def requeue(job: str) -> bool:
    """Requeue exactly this job, unless it is being cancelled or has ended already.

    Returns False where that is impossible: SLURM refuses it, scontrol is not installed, or the
    controller stays down.
    """

    def try_once() -> None:
        if is_running(job):  # neither cancelled, nor requeued by SLURM itself
            call("scontrol", "requeue", job)

    for _ in range(REQUEUE_TRIES):  # the signal that stopped this job may also end scontrol
        try:
            until_up(try_once, lambda: None)
            return True
        except RuntimeError as error:
            print(f"note: not requeued yet ({error})", flush=True)
            time.sleep(1.0)
        except (FileNotFoundError, UserError) as error:
            print(f"note: not requeued ({error})", flush=True)
            break
    return False


def elapsed_seconds(jobs: Sequence[str]) -> dict[str, float] | None:
    """Return how long these jobs (`12`, elements as `12_3`) ran, or None without accounting."""
    rows = _accounts("ElapsedRaw", jobs)
    if rows is None:
        return None
    elapsed: dict[str, float] = {}
    for job, seconds in rows:
        if seconds.isdecimal():
            elapsed[job] = elapsed.get(job, 0.0) + float(seconds)
    return elapsed


def final_states(jobs: Collection[str]) -> dict[str, str]:
    """Return the last state of those jobs that accounting knows, such as `CANCELLED by 1000`."""
    return dict(_accounts("State", jobs) or ())


def _accounts(column: str, jobs: Collection[str]) -> list[tuple[str, str]] | None:
    """Return the ids and a column of sacct of all runs of these jobs, or None without an answer."""
    if not jobs:
        return []
    ids = ",".join(sorted({job.partition("_")[0] for job in jobs}))
    try:
        text = call(
            "sacct", "-X", "-n", "-P", "-D", f"--format=JobID,{column}", "-j", ids
        )  # -D: the runs before each requeue, too
    except (FileNotFoundError, RuntimeError, SlurmDown):
        return None
    rows = [row.partition("|") for row in text.split("\n") if row]
    return [(job, value) for job, _, value in rows]
