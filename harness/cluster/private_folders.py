"""Folders that only their owner can write: submitit's pickles lie there and are executed."""

from __future__ import annotations

import contextlib
import os
import stat
import time
import uuid
from pathlib import Path

from harness.errors import UserError
from harness.files import explained, make_folder


def private_folder(path: Path) -> Path:
    """Return `path` as a folder that only its owner can write; it is made where it is missing.

    Raises UserError where it exists and belongs to another user or is writable by others.
    """
    make_folder(path.parent)
    with explained(path):
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=0o700)
        status = path.stat()
    if status.st_uid != os.getuid() or stat.S_IMODE(status.st_mode) & 0o022:
        raise UserError(
            f"{path} belongs to another user or is writable by others, and files in it are "
            "executed: make it yours alone (chown, chmod 700), or choose another store with "
            "store=PATH"
        )
    return path


def new_launch_folder(sweep_folder: Path) -> Path:
    """Return a new private folder for the files, pickles and logs of one launch."""
    name = f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:6]}"
    return private_folder(private_folder(sweep_folder / "logs") / name)
