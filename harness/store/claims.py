"""Claims: at most one worker trains a stage at a time, on any shared POSIX folder.

A claim is a file made by atomic create. Its owner touches it (the heartbeat); when the touches
stop for `STALE_SECONDS`, or its process is known to be dead, another worker may take it over.
Ages are differences between times that the file system itself gave, so that the clocks of two
nodes need not agree.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.files import atomic_write, create

HEARTBEAT_SECONDS = 5.0
STALE_SECONDS = 120.0
"""Longer than the longest pause of a healthy owner: a slow network file system, a long step."""


class ClaimLost(Exception):
    """Another worker took the claim over: stop, write nothing more."""


def _boot() -> str:
    """Names this machine's boot without naming the machine; a PID means nothing elsewhere."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""


def process_start(pid: int) -> str | None:
    """Start time of a process in clock ticks since boot, or None when it is gone or a zombie.

    A PID alone is reused; with its start time it names one process of this boot.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]


@dataclass(frozen=True)
class ClaimState:
    """What a claim file says, seen from outside."""

    token: str
    job: str
    attempt: int
    age: float  # seconds since the last heartbeat
    dead: bool  # its process is known to be gone
    log: str = ""  # file that its owner writes to

    @property
    def live(self) -> bool:
        """Whether its owner must be taken to be at work."""
        return not self.dead and self.age < STALE_SECONDS

    def before(self, job: str, attempt: int) -> bool:
        """Whether it is an earlier attempt's of this job."""
        return self.job == job and self.attempt < attempt


def _server_now(folder: Path) -> float:
    """The file system's own idea of now; the local clock where it cannot be asked.

    A file without a name tells, where the file system has such files; NFS does not.
    """
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_TMPFILE | os.O_WRONLY)
        try:
            return os.fstat(descriptor).st_mtime
        finally:
            os.close(descriptor)
    probe = folder / f".now.{uuid.uuid4().hex}"
    try:
        probe.touch()
        return probe.stat().st_mtime
    except OSError:
        return time.time()
    finally:
        with contextlib.suppress(OSError):
            probe.unlink(missing_ok=True)


def look(folder: Path, now: float | None = None) -> ClaimState | None:
    """State of the claim in a stage's folder, or None. Pass `now` to spare a probe per call."""
    path = folder / "claim"
    try:
        content = path.read_bytes()
        touched = path.stat().st_mtime
    except FileNotFoundError:
        return None
    except IsADirectoryError:
        return ClaimState("", "", 0, math.inf, dead=True)
    age = max(0.0, (_server_now(folder) if now is None else now) - touched)
    try:
        said: dict[str, Any] = json.loads(content)
        token, boot, pid, started = said["token"], said["boot"], int(said["pid"]), said["started"]
        job, attempt, log = str(said["job"]), int(said["attempt"]), str(said.get("log", ""))
    except (
        ValueError,
        KeyError,
        TypeError,
        RecursionError,
    ):  # its writer died between create and write
        return ClaimState("", "", 0, age, dead=age > HEARTBEAT_SECONDS)
    dead = bool(boot) and boot == _boot() and process_start(pid) != started
    return ClaimState(str(token), job, attempt, age, dead, log)


class Claim:
    """A claim that this process holds; `previous` is the owner it was taken from."""

    def __init__(self, folder: Path, token: str, previous: ClaimState | None = None):
        self.path = folder / "claim"
        self.token = token
        self.previous = previous
        self._last = time.monotonic()

    def heartbeat(self, force: bool = False) -> None:
        """Touch the claim, at most every few seconds. Raises ClaimLost when it is not ours."""
        if not force and time.monotonic() - self._last < HEARTBEAT_SECONDS:
            return
        self._last = time.monotonic()
        self.verify()
        with contextlib.suppress(OSError):  # a full or briefly read-only store: tried again soon
            os.utime(self.path)

    def verify(self) -> None:
        """Raise ClaimLost unless the claim file still is ours."""
        try:
            token = json.loads(self.path.read_bytes())["token"]
        except (FileNotFoundError, ValueError, KeyError) as error:
            raise ClaimLost(f"{self.path} is gone") from error
        except OSError:  # the file system is away for a moment: no proof of loss
            return
        if token != self.token:
            raise ClaimLost(f"{self.path} was taken over by another worker")

    def release(self) -> None:
        """Give the stage free, if it still is ours."""
        with contextlib.suppress(ClaimLost, OSError):
            self.verify()
            self.path.unlink()


def try_claim(folder: Path, job: str, attempt: int = 0, log: str = "") -> Claim | None:
    """Claim the stage of `folder` for this process, or None while another holds it.

    A claim of an earlier attempt of the same job is dead: SLURM runs a job once at a time. Stale
    claims are taken over: the taker wins a lock file named after the stale claim's token,
    so that of many takers exactly one replaces exactly that claim. Raises CannotWrite.
    """
    token = uuid.uuid4().hex
    content = json.dumps(
        {
            "token": token,
            "job": job,
            "attempt": attempt,
            "log": log,
            "boot": _boot(),
            "pid": os.getpid(),
            "started": process_start(os.getpid()),
        }
    ).encode()
    path = folder / "claim"
    if create(path, content):
        return Claim(folder, token)
    seen = look(folder)
    if seen is None or (seen.live and not seen.before(job, attempt)):
        return None
    lock = folder / f"claim.takeover.{seen.token}"
    if not create(lock, content):
        with contextlib.suppress(OSError):  # a taker that died before it finished
            if _server_now(folder) - lock.stat().st_mtime > STALE_SECONDS:
                lock.unlink()
        return None
    try:
        again = look(folder)
        if again is None or again.token != seen.token:
            return None
        if again.live and not again.before(job, attempt):
            return None
        atomic_write(path, content)
    finally:
        lock.unlink(missing_ok=True)
    return Claim(folder, token, seen)
