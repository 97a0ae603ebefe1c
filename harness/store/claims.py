"""Claims: at most one worker trains a stage at a time, on any shared POSIX folder.

A claim is a file that is created atomically. Its owner touches it regularly: the heartbeat. When
the heartbeat stops for `STALE_SECONDS`, or the owner's process is known to be dead, another worker
may take the claim over. Ages are differences between times of the file system, so the clocks of
two nodes need not agree.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from harness.files import Damaged, atomic_write, create, move_aside
from harness.store.records import Record, check, misplaced, read_json

HEARTBEAT_SECONDS = 5.0
STALE_SECONDS = 120.0
"""Longer than any pause of a healthy owner, for example on a slow file system or in a long step."""
LEFTOVER_SECONDS = 3600.0
MOST = 2**31 - 1  # the largest PID and attempt


class ClaimLost(Exception):
    """Another worker took the claim over: its former owner must stop and write nothing more."""


class _ClaimFile(Record):
    """The content of a claim file. The token becomes a part of a path."""

    token: Annotated[str, Field(pattern="^[0-9a-f]{32}$")]
    job: Annotated[str, Field(max_length=200)]
    attempt: Annotated[int, Field(ge=0, le=MOST)]
    log: str = ""  # the file that its owner writes to, from the store
    boot: str = ""  # `_pid_space` of its owner; in older versions the boot alone, equal to none
    pid: Annotated[int, Field(gt=0, le=MOST)]
    started: str | None = None


def _pid_space() -> str:
    """Return a name for this machine's boot and this process's PID and time namespaces.

    A PID and its start time have a meaning only within these. '' where they cannot be found out.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        spaces = [Path(f"/proc/self/ns/{kind}").stat().st_ino for kind in ("pid", "time")]
    except OSError:
        return ""
    return ":".join(map(str, [boot, *spaces]))


def _stat(pid: int) -> list[str] | None:
    """Return the fields of /proc/PID/stat from the process's state on; None if it cannot be read.

    Also None where /proc is that of another PID namespace, as in a container that did not mount its
    own: there PID is the number of another process. The files begin with the name of a process,
    which may be any bytes.
    """
    try:
        status = Path("/proc/self/status").read_text(errors="replace")
        pids = next(line for line in status.split("\n") if line.startswith("NSpid:")).split()[1:]
        if pids != [str(os.getpid())]:
            return None
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except (OSError, StopIteration):
        return None


def process_start(pid: int) -> str:
    """Return a process's start time in clock ticks since boot; '' if it cannot be found out."""
    fields = _stat(pid)
    return "" if fields is None else fields[19]


def has_ended(pid: int, started: str) -> bool:
    """Return whether the process of this PID namespace that started then is known to have ended.

    PIDs are reused, but PID and start time together name one process. Where /proc hides a process
    of another user, only its PID is known.
    """
    try:
        os.kill(pid, 0)  # sends nothing
    except ProcessLookupError:
        return True
    except PermissionError:  # it is another user's
        pass
    fields = _stat(pid)
    return fields is not None and (fields[0] == "Z" or (started != "" and fields[19] != started))


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

    def may_be_taken(self, job: str, attempt: int) -> bool:
        """Return whether this attempt of `job` may take the claim over."""
        return not self.live or (self.job == job and self.attempt < attempt)


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
    probe = folder / f".now.{uuid.uuid4().hex}.tmp"
    try:
        probe.touch(exist_ok=False)
        return probe.stat().st_mtime
    except OSError:
        return time.time()
    finally:
        with contextlib.suppress(OSError):
            probe.unlink(missing_ok=True)


def _age(path: Path) -> float:
    """Return the seconds since a file was last touched, by the clock of its file system.

    A time in the future is as far from now: it is the mark of a clock that was wrong, and must not
    count as fresh until then.
    """
    return abs(_server_now(path.parent) - path.lstat().st_mtime)


def remove_leftovers(folder: Path, is_claimed: bool = False) -> None:
    """Remove temporary files that no writer has touched for an hour: theirs were killed.

    A folder of a stage that this process has claimed has no other writers, but workers that look at
    the claim: all other temporary files are removed.
    """
    for pattern in (".*.tmp", "claim.takeover.*"):
        for path in folder.glob(pattern):
            is_ours = is_claimed and not path.name.startswith((".claim.", ".now.", "claim."))
            with contextlib.suppress(OSError):
                if is_ours or _age(path) > LEFTOVER_SECONDS:
                    path.unlink()


def _read(path: Path) -> _ClaimFile:
    """Return the content of a claim file. Raises FileNotFoundError or Damaged."""
    return check(path, read_json(path), _ClaimFile)


def look(folder: Path) -> ClaimState | None:
    """Return the state of the claim in a stage's folder, or None if there is no claim."""
    path = folder / "claim"
    try:
        age = math.inf if misplaced(path) else _age(path)
        claim = _read(path)
    except FileNotFoundError:
        return None
    except Damaged:
        # Its writer died between create and write, or it is a link, a folder or another's file.
        return ClaimState("", "", 0, age, dead=age > HEARTBEAT_SECONDS)
    is_local = claim.boot != "" and claim.boot == _pid_space()
    dead = is_local and has_ended(claim.pid, claim.started or "")
    return ClaimState(claim.token, claim.job, claim.attempt, age, dead, claim.log)


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
            os.utime(self.path, follow_symlinks=False)

    def verify(self) -> None:
        """Raise ClaimLost unless the claim file still belongs to this process."""
        try:
            token = _read(self.path).token
        except (FileNotFoundError, Damaged) as error:
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
    claim = _ClaimFile(
        token=uuid.uuid4().hex,
        job=job,
        attempt=attempt,
        log=log,
        boot=_pid_space(),
        pid=os.getpid(),
        started=process_start(os.getpid()),
    )
    content = claim.model_dump_json().encode()
    path = folder / "claim"
    if create(path, content):
        return Claim(folder, claim.token)
    seen = look(folder)
    if seen is None or not seen.may_be_taken(job, attempt):
        return None
    lock = folder / f"claim.takeover.{seen.token}"
    if not create(lock, content):
        with contextlib.suppress(OSError):  # left by a worker that died during its takeover
            if problem := misplaced(lock):
                move_aside(lock, problem)
            elif _age(lock) > STALE_SECONDS:
                lock.unlink()
        return None
    try:
        again = look(folder)
        if again is None or again.token != seen.token or not again.may_be_taken(job, attempt):
            return None
        if problem := misplaced(path):
            move_aside(path, problem)
        atomic_write(path, content)
    finally:
        lock.unlink(missing_ok=True)
    return Claim(folder, claim.token, seen)
