"""Claims: at most one worker trains a stage at a time, on any shared POSIX folder.

A claim is a file that is created atomically. Its owner touches it regularly: the heartbeat. When
the heartbeat stops for `STALE_SECONDS`, or the owner's process is known to be dead, another worker
may take the claim over. Ages are differences between times of the file system, so the clocks of
two nodes need not agree.
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
"""Longer than any pause of a healthy owner, for example on a slow file system or in a long step."""


class ClaimLost(Exception):
    """Another worker took the claim over: its former owner must stop and write nothing more."""


def _boot() -> str:
    """Return an id of this machine's boot; a PID has no meaning on another machine or boot."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""


def process_start(pid: int) -> str | None:
    """Return a process's start time in clock ticks since boot; None if it is gone or a zombie.

    PIDs are reused, but PID and start time together name one process of this boot.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]


@dataclass(frozen=True)
class ClaimState:
    """The content and age of a claim file, as another process reads them."""

    token: str
    job: str
    attempt: int
    age: float  # seconds since the last heartbeat
    dead: bool  # its process is known to be gone
    log: str = ""  # the file that its owner writes to

    @property
    def live(self) -> bool:
        """Whether its owner must be assumed to be working."""
        return not self.dead and self.age < STALE_SECONDS

    def before(self, job: str, attempt: int) -> bool:
        """Return whether the claim belongs to an earlier attempt of this job."""
        return self.job == job and self.attempt < attempt


def _server_now(folder: Path) -> float:
    """Return the time of the file system's clock; the local clock if no file can be created.

    An unnamed temporary file is tried first, because it leaves no trace. NFS has no such files.
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
    """Return the state of the claim in a stage's folder, or None if there is no claim.

    `now` is the time of the file system's clock; without it, each call creates a file to learn it.
    """
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
        claim: dict[str, Any] = json.loads(content)
        token, boot = claim["token"], claim["boot"]
        pid, started = int(claim["pid"]), claim["started"]
        job, attempt, log = str(claim["job"]), int(claim["attempt"]), str(claim.get("log", ""))
    except (ValueError, KeyError, TypeError, RecursionError):
        # Not the content of a claim: its writer died between create and write.
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
        """Touch the claim, at most every few seconds. Raises ClaimLost if another worker has it."""
        if not force and time.monotonic() - self._last < HEARTBEAT_SECONDS:
            return
        self._last = time.monotonic()
        self.verify()
        with contextlib.suppress(OSError):  # full or read-only for a moment: tried again soon
            os.utime(self.path)

    def verify(self) -> None:
        """Raise ClaimLost unless the claim file still belongs to this process."""
        try:
            token = json.loads(self.path.read_bytes())["token"]
        except (FileNotFoundError, ValueError, KeyError) as error:
            raise ClaimLost(f"{self.path} is gone") from error
        except OSError:  # the file system is unavailable for a moment, which proves nothing
            return
        if token != self.token:
            raise ClaimLost(f"{self.path} was taken over by another worker")

    def release(self) -> None:
        """Remove the claim, if it still belongs to this process."""
        with contextlib.suppress(ClaimLost, OSError):
            self.verify()
            self.path.unlink()


def try_claim(folder: Path, job: str, attempt: int = 0, log: str = "") -> Claim | None:
    """Claim the stage of `folder` for this process; return None while another process has it.

    A claim of an earlier attempt of the same job is dead, since SLURM never runs two attempts of a
    job at once. A stale or dead claim is taken over under a lock file that is named after its
    token: of many workers that try, exactly one replaces exactly that claim. Raises CannotWrite.
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
        with contextlib.suppress(OSError):  # left by a worker that died during its takeover
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
