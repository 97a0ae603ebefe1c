"""The private folder of a launch: submission files, pickles, logs, and the code that its jobs run.

The copy of the code includes uncommitted changes; its `snapshot.json` then records the commit with
`+changes`. Each launch makes its own copy: one that is already in a store may come from another
user, and jobs would execute it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

from harness.errors import UserError
from harness.files import explained, make_folder, write_json
from harness.paths import GRIDS
from harness.plugins import plugin_files
from harness.store.provenance import SOURCE, code_version, commit


def private_folder(path: Path) -> Path:
    """Return `path` as a folder that only its owner can write; it is made where it is missing.

    submitit's pickles lie in such folders and are executed. Raises UserError where the folder
    exists and belongs to another user or is writable by others.
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


@dataclass(frozen=True)
class LaunchFolder:
    """The private folder of a launch, with the copies of code and plug-ins that its jobs run."""

    path: Path
    code: Path
    plugins: tuple[Path, ...]


def take_code(sweep_folder: Path) -> LaunchFolder:
    """Return a new private folder with copies of the code and the plug-ins of this process."""
    path = new_launch_folder(sweep_folder)
    try:
        folder = LaunchFolder(path, take_snapshot(path), take_plugins(path))
    except BaseException:
        shutil.rmtree(path, ignore_errors=True)
        raise
    if (commit() or "").endswith("+changes"):
        print(f"jobs run this code with its uncommitted changes: a copy in {folder.code}")
    return folder


def take_snapshot(launch_folder: Path) -> Path:
    """Copy the code into a launch's new private folder; return the folder for PYTHONPATH.

    The copy includes Numba's disk cache and keeps the modification times of source files, by which
    Numba decides whether the cache is valid. Without the cache, the first jobs of each launch
    compile for ten seconds.
    """
    target = launch_folder / "code"
    target.mkdir(mode=0o700)
    ignore = shutil.ignore_patterns("*.pyc*", "*.tmp.*")  # other processes may be writing them
    with explained(target):
        shutil.copytree(SOURCE, target / SOURCE.name, ignore=ignore)
        if not GRIDS.is_relative_to(SOURCE):  # a checkout; policies refer to spaces in that folder
            shutil.copytree(GRIDS, target / GRIDS.name)
        for folder, _, _ in os.walk(target):  # else a read-only checkout's copy cannot be removed
            Path(folder).chmod(0o700)
    write_json(target / "snapshot.json", {"code": code_version(), "commit": commit()})
    return target


def take_plugins(launch_folder: Path) -> tuple[Path, ...]:
    """Copy the plug-in files of this process into a launch's folder; return the copies, in order.

    Each has a folder of its own, so that files of one name in different places stay apart.
    """
    copies = []
    for number, path in enumerate(plugin_files()):
        folder = launch_folder / "plugins" / str(number)
        folder.mkdir(mode=0o700, parents=True)
        copies.append(Path(shutil.copy(path, folder)))
    return tuple(copies)
