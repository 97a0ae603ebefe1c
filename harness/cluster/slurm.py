"""SLURM's commands, each with a deadline: what the queue says, requeueing, the site's limits.

Nothing here waits for ever: a controller that is down raises `SlurmDown`, a command that is not
installed counts as one that knows nothing.
"""

from __future__ import annotations

import itertools
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from harness.errors import UserError
from harness.store.files import read_lines

CALL_SECONDS = 30.0
DOWN = ("Unable to contact slurm controller", "Connection refused", "Connection timed out")


class SlurmDown(Exception):
    """The controller did not answer in time; it may be back soon."""


@dataclass(frozen=True)
class Queued:
    """One job, or array element, that the scheduler still has."""

    state: str  # PENDING, RUNNING, ...
    reason: str


def call(*command: str, seconds: float = CALL_SECONDS) -> str:
    """Output of a command. Raises SlurmDown, FileNotFoundError, or RuntimeError with its words."""
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired as error:
        raise SlurmDown(f"{command[0]} did not answer within {seconds:.0f} s") from error
    if said.returncode:
        words = " ".join(said.stderr.split()) or f"exit code {said.returncode}"
        if any(text in words for text in DOWN):
            raise SlurmDown(words)
        raise RuntimeError(f"{command[0]}: {words}")
    return said.stdout


def queue() -> dict[str, Queued] | None:
    """This user's jobs by id (`12`, `12_3`), asked for once; None where squeue is not installed."""
    try:
        text = call("squeue", "--me", "--noheader", "--array", "--format=%i|%T|%r")
    except FileNotFoundError:
        return None
    found = {}
    for line in text.splitlines():
        job, _, rest = line.strip().partition("|")
        state, _, reason = rest.partition("|")
        if job:
            found[job] = Queued(state, reason)
    return found


def still_queued(store: Path) -> dict[str, tuple[str, Queued]]:
    """Stages that a job of any sweep of the store still has, with the job and its state.

    The scheduler is asked once, and only where a sweep was ever handed to it. Raises UserError
    when it does not answer.
    """
    records = sorted(store.glob("sweeps/*/jobs.jsonl"))
    if not records:
        return {}
    try:
        jobs = queue() or {}
    except SlurmDown as error:
        raise UserError(
            f"SLURM does not answer ({error}), so what it has queued is unknown: try again when "
            "its controller is back"
        ) from error
    found: dict[str, tuple[str, Queued]] = {}
    for line in itertools.chain.from_iterable(map(read_lines, records)):
        for number, stages in enumerate(line["parts"]):
            job = f"{line['job']}_{number}" if line["array"] else line["job"]
            if job in jobs:
                found.update((stage, (job, jobs[job])) for stage in stages)
    return found


def largest_array(default: int = 1001) -> int:
    """`MaxArraySize`: an array's indices end below it."""
    try:
        text = call("scontrol", "show", "config")
    except (FileNotFoundError, RuntimeError):
        return default
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", text, re.MULTILINE)
    return int(found[1]) if found else default


def this_job() -> str | None:
    """The job that this process runs in, as SLURM's commands name it: `12` or `12_3`."""
    array, task = (os.environ.get(f"SLURM_ARRAY_{name}_ID") for name in ("JOB", "TASK"))
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID")


def restarts() -> int:
    """How often SLURM has requeued this job."""
    return int(os.environ.get("SLURM_RESTART_COUNT", "0"))


def requeue(job: str) -> bool:
    """Put exactly this job back into the queue, unless it is being cancelled or ended already."""
    try:
        state = re.search(r"JobState=(\w+)", call("scontrol", "show", "job", job))
        if state is None or state[1] != "RUNNING":  # cancelled, or requeued by SLURM itself
            return False
        call("scontrol", "requeue", job)
    except (FileNotFoundError, RuntimeError, SlurmDown) as error:
        print(f"note: not requeued ({error}); the next launch goes on")
        return False
    return True
