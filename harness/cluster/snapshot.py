"""The copy of the code that a submission runs, so that later edits do not change queued jobs.

The copy includes uncommitted changes, and its record says so. Each launch makes its own copy: one
that is already in a store may come from another user, and jobs would execute it.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from harness.files import write_json
from harness.paths import GRIDS
from harness.plugins import plugin_files
from harness.store.provenance import SOURCE, code_version, commit


def take_snapshot(launch_folder: Path) -> Path:
    """Copy the code into a launch's new private folder; returns the folder for PYTHONPATH.

    Loops that Numba compiled here are copied with the times of their sources, by which Numba
    recognises them. Without them each launch's first jobs compile for ten seconds.
    """
    target = launch_folder / "code"
    target.mkdir(mode=0o700)
    ignore = shutil.ignore_patterns("*.pyc*", "*.tmp.*")  # other processes may be writing them
    shutil.copytree(SOURCE, target / SOURCE.name, ignore=ignore)
    if not GRIDS.is_relative_to(SOURCE):  # in a checkout; policies name spaces that lie there
        shutil.copytree(GRIDS, target / GRIDS.name)
    write_json(target / "snapshot.json", {"code": code_version(), "commit": commit()})
    return target


def take_plugins(launch_folder: Path) -> list[Path]:
    """Copy the plug-in files of this process into a launch's folder; return the copies, in order.

    Each has a folder of its own, so that files of one name in different places stay apart.
    """
    copies = []
    for number, path in enumerate(plugin_files()):
        folder = launch_folder / "plugins" / str(number)
        folder.mkdir(mode=0o700, parents=True)
        copies.append(Path(shutil.copy(path, folder)))
    return copies
