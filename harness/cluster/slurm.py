"""SLURM's commands, each with a deadline: what the queue says, requeueing, the site's limits.

Nothing here waits for ever: a controller that is down raises `SlurmDown`, a command that is not
installed counts as one that knows nothing.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from harness.errors import UserError

Answer = TypeVar("Answer")
CALL_SECONDS = 30.0
DOWN_SECONDS = 120.0
"""How long a controller that does not answer is tried again."""
REQUEUE_TRIES = 5
DOWN = (
    "Unable to contact slurm controller", "Connection refused", "Connection timed out",
    "Connection reset", "Socket timed out", "Zero Bytes were transmitted", "in standby mode",
)  # fmt: skip
OWN_TASTE = ("SQUEUE_", "SACCT_", "SCANCEL_", "SCONTROL_")
"""What users set to see other jobs, or columns, than those asked for here."""


class SlurmDown(Exception):
    """The controller did not answer in time; it may be back soon."""


@dataclass(frozen=True)
class Queued:
    """One job, or array element, that the scheduler still has."""

    state: str  # PENDING, RUNNING, ...
    reason: str
    name: str


def call(*command: str, seconds: float = CALL_SECONDS) -> str:
    """Output of a command. Raises SlurmDown, FileNotFoundError, or RuntimeError with its words."""
    env = {key: value for key, value in os.environ.items() if not key.startswith(OWN_TASTE)}
    try:
        said = subprocess.run(
            command, env=env, capture_output=True, text=True, timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise SlurmDown(f"{command[0]} did not answer within {seconds:.0f} s") from error
    if said.returncode:
        words = " ".join(said.stderr.split()) or f"exit code {said.returncode}"
        if any(text in words for text in DOWN):
            raise SlurmDown(words)
        raise RuntimeError(f"{command[0]}: {words}")
    return said.stdout


def patiently(ask: Callable[[], Answer], beat: Callable[[], None]) -> Answer:
    """`ask()`, again while the controller is down; `beat` keeps alive what is held meanwhile.

    Raises UserError after `DOWN_SECONDS`.
    """
    deadline = time.monotonic() + DOWN_SECONDS
    while True:
        try:
            return ask()
        except SlurmDown as error:
            if time.monotonic() > deadline:
                raise UserError(
                    f"the SLURM controller did not answer for {DOWN_SECONDS:.0f} s ({error}); "
                    "nothing more was queued: launch again when it is back"
                ) from error
            print("the SLURM controller does not answer, trying again", file=sys.stderr, flush=True)
            beat()
            time.sleep(5.0)


def queue() -> dict[str, Queued] | None:
    """This user's jobs by id (`12`, `12_3`), asked for once; None where squeue is not installed."""
    try:
        text = call("squeue", "--me", "--noheader", "--array", "--format=%i|%T|%j|%r")
    except FileNotFoundError:
        return None
    found = {}
    for line in text.splitlines():
        job, state, name, reason = (line.strip() + "|||").split("|", 3)
        if job:
            found[job] = Queued(state, reason.rstrip("|"), name)
    return found


def cancel_named(name: str) -> None:
    """Take away every job of this (unique) name."""
    with contextlib.suppress(FileNotFoundError, RuntimeError):
        call("scancel", "--me", f"--name={name}")


def largest_array(default: int = 1001) -> int:
    """`MaxArraySize`: an array's indices end below it."""
    try:
        text = call("scontrol", "show", "config")
    except (FileNotFoundError, RuntimeError):
        return default
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", text, re.MULTILINE)
    return int(found[1]) if found else default


def this_job() -> str | None:
    """The job that this process is the worker of, as SLURM's commands name it: `12` or `12_3`.

    None for workers of a launch on this machine, which may itself run inside of a job: that one is
    the user's own, not ours to requeue.
    """
    if os.environ.get("SUBMITIT_EXECUTOR") == "local":
        return None
    array, task = (os.environ.get(f"SLURM_ARRAY_{name}_ID") for name in ("JOB", "TASK"))
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID")


def restarts() -> int:
    """How often SLURM has requeued this job."""
    return int(os.environ.get("SLURM_RESTART_COUNT", "0")) if this_job() else 0


def seconds_left() -> float | None:
    """Until this job's time limit, where SLURM said so at its start."""
    end = os.environ.get("SLURM_JOB_END_TIME", "")
    if end.isdecimal():
        return float(end) - time.time()
    job = this_job()
    try:
        text = call("squeue", "--noheader", "--format=%L", "--jobs", job) if job else ""
    except (FileNotFoundError, RuntimeError, SlurmDown):
        return None
    found = re.fullmatch(r"(?:(?:(\d+)-)?(\d+):)?(\d+):(\d+)", text.strip())
    if found is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60.0 + seconds


def is_running(job: str) -> bool:
    """Whether SLURM takes the job to be running: neither cancelled nor being requeued."""
    return call("squeue", "--noheader", "--format=%T", "--jobs", job).strip() == "RUNNING"


def requeue(job: str) -> bool:
    """Put exactly this job back into the queue, unless it is being cancelled or ended already.

    False where that cannot be: SLURM refuses it, or scontrol is not installed.
    """
    for _ in range(REQUEUE_TRIES):  # the signal that stopped this job may hit scontrol, too
        try:
            if not is_running(job):  # cancelled, or requeued by SLURM itself
                return True
            call("scontrol", "requeue", job)
            return True
        except (RuntimeError, SlurmDown) as error:
            print(f"note: not requeued yet ({error})", flush=True)
            time.sleep(1.0)
        except FileNotFoundError:
            break
    return False


def elapsed(jobs: Sequence[str]) -> dict[str, float] | None:
    """Seconds that these jobs (`12`, elements as `12_3`) ran; None without accounting."""
    if not jobs:
        return {}
    wanted = ",".join(sorted({job.partition("_")[0] for job in jobs}))
    try:
        text = call(
            "sacct", "-X", "-n", "-P", "-D", "--format=JobID,ElapsedRaw", "-j", wanted
        )  # -D: the runs before each requeue, too
    except (FileNotFoundError, RuntimeError, SlurmDown):
        return None
    found: dict[str, float] = {}
    for line in text.splitlines():
        job, _, seconds = line.partition("|")
        if seconds.isdecimal():
            found[job] = found.get(job, 0.0) + float(seconds)
    return found
