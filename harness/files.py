"""Atomic files on any POSIX folder: a reader sees the old file or the complete new one.

A file is written under a temporary name, synced and renamed. A write that fails (disk full, folder
read-only) leaves the old file as it was and raises `UserError` with the path.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.errors import UserError

_NO_PERMISSION = "no permission: correct the folder's owner or mode, or choose another folder"
_REMEDY = {
    errno.ENOSPC: "the disk is full: free some space, then run the same command again",
    errno.EDQUOT: "the disk quota (space, or number of files) is used up: delete some files, then "
    "run the same command again",
    errno.EROFS: "the file system is read-only: remount it, or choose another folder",
    errno.ELOOP: "it is a link, which is not followed: remove it, or choose another folder",
    errno.EACCES: _NO_PERMISSION,
    errno.EPERM: _NO_PERMISSION,
}
_NO_INODES = (
    "the disk has space, but its file system has no inode left for another file: delete files "
    "there, then run the same command again"
)


class Damaged(Exception):
    """A file that exists but is truncated or not of its format."""


class CannotWrite(UserError):
    """A write failed: disk full, read-only file system, no permission."""


def user_path(text: str, key: str) -> Path:
    """Return the path that a user wrote as the value of `key`; `~` is expanded.

    Raises UserError if `~name` does not name a user of this machine.
    """
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise UserError(
            f"{key}={text}: this machine has no such user; write the path without ~"
        ) from error


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Raise CannotWrite with a remedy if the block, which writes `path`, raises an OSError."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOSPC and _lacks_inodes(path):
            remedy = _NO_INODES
        elif error.errno in _REMEDY:
            remedy = _REMEDY[error.errno]
        else:
            remedy = f"{error.strerror or error}: correct that, or choose another folder"
        raise CannotWrite(
            f"cannot write {path}: {remedy}. Nothing that was finished is lost."
        ) from error


def _lacks_inodes(path: Path) -> bool:
    """Return whether the file system of `path` has space left, but no inode."""
    existing = next(folder for folder in path.absolute().parents if folder.exists())
    status = os.statvfs(existing)
    return status.f_bavail > 0 and status.f_favail == 0 < status.f_files


def make_folder(path: Path) -> Path:
    """Create the folder `path` and its parents, unless they exist. Return `path`."""
    with explained(path):
        path.mkdir(parents=True, exist_ok=True)
    return path


def atomic_write(path: Path, data: bytes) -> None:
    """Write `data` to `path`. A reader sees the old file or the complete new one."""
    temporary = _temporary(path)
    with explained(path):
        try:
            with temporary.open("xb") as file:
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
    """Create `path` with `data`; return False if it exists already. Raises CannotWrite.

    The function writes a temporary file and makes a hard link to it. Making a link is atomic, also
    on NFS, so a reader never sees an incomplete file.
    """
    temporary = _temporary(path)
    with explained(path):
        try:
            with temporary.open("xb") as file:
                file.write(data)
            os.link(temporary, path)
        except FileExistsError:
            return False
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
    return True


def _temporary(path: Path) -> Path:
    """Return an unused path beside `path`.

    The name has a random part and no process id, which processes of two containers may share.
    """
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")


def sync_folder(folder: Path) -> None:
    """Make renames in `folder` durable, if the file system can sync a folder."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON atomically. Raises ValueError for NaN and infinities."""
    atomic_write(path, (json.dumps(value, indent=1, allow_nan=False) + "\n").encode())


def append_line(path: Path, value: Any) -> None:
    """Append a line of JSON with a single write, so that concurrent writers do not interleave.

    If a killed writer left an incomplete last line, a line break is added first.
    """
    line = (json.dumps(value, allow_nan=False) + "\n").encode()
    with explained(path):
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
        descriptor = os.open(path, flags, 0o644)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):  # a pipe would lose the line
                raise FileExistsError(errno.EEXIST, "it is not a regular file")
            size = os.fstat(descriptor).st_size  # bytes
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                line = b"\n" + line
            os.write(descriptor, line)
        finally:
            os.close(descriptor)


def move_aside(path: Path, why: str, kind: str = "damaged") -> Path:
    """Rename a file to `NAME.KIND-N`, print `why` as a warning, and return the new path."""
    number = 1
    while os.path.lexists(target := path.with_name(f"{path.name}.{kind}-{number}")):
        number += 1
    with explained(path):
        path.rename(target)
    print(f"warning: {why}; moved to {target.name}, its work is done again", file=sys.stderr)
    return target
