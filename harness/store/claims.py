"""Claims: at most one worker trains a stage at a time, on any shared POSIX folder.

A claim is a file that is created atomically. Its owner, a process, touches it regularly: the
heartbeat. If there was no heartbeat for `STALE_SECONDS`, or if the owner is known to be dead,
another worker may take the claim over. Ages are differences between times of the file system, so
the clocks of two nodes need not agree.
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
"""Age after which a temporary file must be that of a writer that was killed."""
INT32_MAX = 2**31 - 1  # the largest valid PID and number of an attempt


class ClaimLost(Exception):
    """Another worker took the claim over: its former owner must stop and write nothing more."""


class _ClaimFile(Record):
    """The content of a claim file, which describes the owner."""

    token: Annotated[str, Field(pattern="^[0-9a-f]{32}$")]  # strict, because it is used in a path
    job: Annotated[str, Field(max_length=200)]
    attempt: Annotated[int, Field(ge=0, le=INT32_MAX)]
    log: str = ""  # path of the owner's log file, relative to the store
    boot: str = ""  # the owner's `_pid_space`; the text of older versions never equals one
    pid: Annotated[int, Field(gt=0, le=INT32_MAX)]
    started: str | None = None  # `process_start` of the owner


def _pid_space() -> str:
    """Return a name for this machine's boot and this process's PID and time namespaces.

    A PID and its start time can be compared only with those of the same name. The name is '' if the
    namespaces cannot be read.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        spaces = [Path(f"/proc/self/ns/{kind}").stat().st_ino for kind in ("pid", "time")]
    except OSError:
        return ""
    return ":".join(map(str, [boot, *spaces]))


def _stat(pid: int) -> list[str] | None:
    """Return the fields of /proc/PID/stat from the process's state on; None if it cannot be read.

    The result is also None if /proc belongs to another PID namespace, as in a container that did
    not mount its own /proc. There the same PID is another process. Both files contain the name of
    a process, which may be any bytes.
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
    """Return a process's start time in clock ticks since boot; '' if it cannot be read."""
    fields = _stat(pid)
    return "" if fields is None else fields[19]


def has_ended(pid: int, started: str) -> bool:
    """Return whether the process with this PID and start time is known to have ended.

    The process must be of this PID namespace. PIDs are reused, so only PID and start time together
    identify a process. If the start time is unknown ('') or /proc hides the process, the PID alone
    decides.
    """
    try:
        os.kill(pid, 0)  # signal 0 only checks that the process exists
    except ProcessLookupError:
        return True
    except PermissionError:  # the process exists, and another user owns it
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
    dead: bool  # the owner is known to have ended
    log: str = ""  # path of the owner's log file, relative to the store

    @property
    def live(self) -> bool:
        """Whether the owner may still be working."""
        return not self.dead and self.age < STALE_SECONDS

    def may_be_taken(self, job: str, attempt: int) -> bool:
        """Return whether this attempt of `job` may take the claim over."""
        return not self.live or (self.job == job and self.attempt < attempt)


def _server_now(folder: Path) -> float:
    """Return the time of the file system's clock, or of the local clock if no file can be created.

    The time is that of a new file. An unnamed temporary file is tried first, because it leaves no
    trace. NFS does not support such files.
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

    For a time in the future, the result is the distance from now. The clock was wrong when it set
    that time, and the file must not count as fresh until then.
    """
    return abs(_server_now(path.parent) - path.lstat().st_mtime)


def remove_leftovers(folder: Path, is_claimed: bool = False) -> None:
    """Remove temporary files of writers that were killed: those older than `LEFTOVER_SECONDS`.

    In the folder of a stage that this process has claimed, others write temporary files only for
    claims, and for the config, which launches write without a claim. So all other temporary files
    are left by an earlier owner, and are removed at any age.
    """
    for pattern in (".*.tmp", "claim.takeover.*"):
        for path in folder.glob(pattern):
            is_of_others = path.name.startswith((".claim.", ".now.", "claim.", ".config.json."))
            with contextlib.suppress(OSError):
                if (is_claimed and not is_of_others) or _age(path) > LEFTOVER_SECONDS:
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
        # Its writer died before it had written the content, or it is not a claim file at all.
        return ClaimState("", "", 0, age, dead=age > HEARTBEAT_SECONDS)
    is_local = claim.boot != "" and claim.boot == _pid_space()
    dead = is_local and has_ended(claim.pid, claim.started or "")
    return ClaimState(claim.token, claim.job, claim.attempt, age, dead, claim.log)


class Claim:
    """A claim that this process holds; `previous` is the claim that it took over, if any."""

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
        with contextlib.suppress(OSError):  # if the disk is full or read-only, the next one may do
            os.utime(self.path, follow_symlinks=False)

    def verify(self) -> None:
        """Raise ClaimLost unless the claim file still belongs to this process."""
        try:
            token = _read(self.path).token
        except (FileNotFoundError, Damaged) as error:
            raise ClaimLost(f"{self.path} is gone") from error
        except OSError:  # an unavailable file system does not mean that the claim is lost
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

    A claim of an earlier attempt of the same job counts as dead, because SLURM never runs two
    attempts of a job at once. A stale or dead claim is taken over under a lock file that is named
    after the claim's token. So exactly one of many workers that try replaces exactly that claim.
    Raises CannotWrite.
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
    current = look(folder)
    if current is None or not current.may_be_taken(job, attempt):
        return None
    lock = folder / f"claim.takeover.{current.token}"
    if not create(lock, content):
        with contextlib.suppress(OSError):  # a worker that died during its takeover left the lock
            if problem := misplaced(lock):
                move_aside(lock, problem)
            elif _age(lock) > STALE_SECONDS:
                lock.unlink()
        return None
    try:
        # Another worker may have taken the claim over before this one had the lock.
        locked = look(folder)
        if locked is None or locked.token != current.token:
            return None
        if not locked.may_be_taken(job, attempt):
            return None
        if problem := misplaced(path):
            move_aside(path, problem)
        atomic_write(path, content)
    finally:
        lock.unlink(missing_ok=True)
    return Claim(folder, claim.token, current)
