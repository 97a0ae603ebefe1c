"""The code that a submission runs: a copy, so that queued jobs do not meet later edits.

Uncommitted changes are part of it, and its record says so. Each launch makes its own: what a store
holds already may be another's, and would be run.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from harness.files import write_json
from harness.plugins import plugin_files
from harness.store.provenance import SOURCE, code_version, commit


def take(launch_folder: Path) -> Path:
    """Folder for PYTHONPATH with this code in it, made in a launch's fresh private folder.

    Loops that were compiled here come along, with the times of their sources, by which Numba knows
    them: each launch's first jobs would compile them anew for ten seconds.
    """
    target = launch_folder / "code"
    target.mkdir(mode=0o700)
    ignore = shutil.ignore_patterns("*.pyc*", "*.tmp.*")  # others may be writing them
    shutil.copytree(SOURCE, target / SOURCE.name, ignore=ignore)
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
