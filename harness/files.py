"""Files that are whole or absent: written aside, synced, renamed; damaged ones moved aside.

Works on any POSIX folder. A reader never sees half a file; a write that fails (disk full, folder
read-only) leaves the old file as it was and raises `UserError` with the path.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.errors import UserError

_REMEDY = {
    errno.ENOSPC: "the disk is full: free some space and launch again",
    errno.EDQUOT: "the disk quota is used up: free some space and launch again",
    errno.EROFS: "the file system is read-only: remount it, or choose store=PATH",
    errno.EACCES: "no permission: correct the folder's owner or mode, or choose store=PATH",
    errno.EPERM: "no permission: correct the folder's owner or mode, or choose store=PATH",
}


class Damaged(Exception):
    """A file that exists but is not what its writer left: truncated, or not of its format."""


class CannotWrite(UserError):
    """The machine would not take a write: disk full, read-only, no permission."""


def user_path(said: str, what: str) -> Path:
    """A path as a user writes it, `~` allowed; `what` is the key. Raises UserError."""
    try:
        return Path(said).expanduser()
    except RuntimeError as error:
        raise UserError(f"{what}={said}: no such user here, so write the path out") from error


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Refusals of the system to write `path` become CannotWrite, a sentence with a remedy."""
    try:
        yield
    except OSError as error:
        remedy = _REMEDY.get(error.errno or 0)
        if remedy is None:
            remedy = f"{error.strerror or error}: correct that, or choose store=PATH"
        raise CannotWrite(
            f"cannot write {path}: {remedy}. Nothing that was finished is lost."
        ) from error


def make_folder(path: Path) -> Path:
    """Create `path` and its parents; an existing folder is fine."""
    with explained(path):
        path.mkdir(parents=True, exist_ok=True)
    return path


def atomic_write(path: Path, data: bytes) -> None:
    """Write `data` to `path` so that a reader sees the old file or the whole new one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with explained(path):
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


def create(path: Path, data: bytes) -> bool:
    """Create `path` with `data` if it does not exist; False where it does. Raises CannotWrite.

    A hard link from a complete file is atomic on NFS too and never shows half of it.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    with explained(path):
        try:
            temporary.write_bytes(data)
            os.link(temporary, path)
        except FileExistsError:
            return False
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
    return True


def sync_folder(folder: Path) -> None:
    """Make renames in `folder` durable; file systems that cannot sync a folder are let be."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, value: Any) -> None:
    """Atomic, human-readable JSON; NaN and infinities are refused."""
    atomic_write(path, (json.dumps(value, indent=1, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object. Raises FileNotFoundError, or Damaged when it is not one."""
    try:
        text = path.read_bytes()
    except (IsADirectoryError, NotADirectoryError) as error:
        raise Damaged(f"{path} is no file ({error.strerror})") from error
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Damaged(f"{path} is not valid JSON ({error})") from error
    if not isinstance(value, dict):
        raise Damaged(f"{path} holds {type(value).__name__}, not an object")
    return value


def append_line(path: Path, value: Any) -> None:
    """Append one JSON line with a single write, so that concurrent writers do not interleave.

    A line that a killed writer left torn is closed first, so that it spoils only itself.
    """
    line = (json.dumps(value, allow_nan=False) + "\n").encode()
    with explained(path):
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            size = os.fstat(descriptor).st_size
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                line = b"\n" + line
            os.write(descriptor, line)
        finally:
            os.close(descriptor)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Objects of a JSON-lines file; a torn last line is left out; absent file: empty list."""
    if not path.is_file():
        return []
    rows = []
    for line in path.read_bytes().splitlines():
        with contextlib.suppress(ValueError, RecursionError):
            value = json.loads(line)
            if isinstance(value, dict):
                rows.append(value)
    return rows


def move_aside(path: Path, why: str, kind: str = "damaged") -> Path:
    """Rename a damaged file, or one of another `kind`, to `NAME.KIND-N` and say so on stderr."""
    number = 1
    while (target := path.with_name(f"{path.name}.{kind}-{number}")).exists():
        number += 1
    with explained(path):
        path.rename(target)
    print(f"warning: {why}; moved to {target.name}, its work is done again", file=sys.stderr)
    return target
