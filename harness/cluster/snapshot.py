"""The code that a submission runs: a copy, so that queued jobs do not meet later edits.

Uncommitted changes are part of it, and its record says so. Equal code is copied once.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from harness.cluster.submit import private_folder
from harness.store.files import write_json
from harness.store.provenance import SOURCE, code_version, commit


def take(sweep_folder: Path) -> Path:
    """Folder for PYTHONPATH with this code in it: `code/<digest of all source files>`."""
    target = sweep_folder / "code" / code_version()
    if not target.exists():
        private_folder(target.parent)
        with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
            copy = Path(scratch) / "copy"
            ignore = shutil.ignore_patterns("__pycache__", "*.pyc", "*.nbi", "*.nbc")
            shutil.copytree(SOURCE, copy / SOURCE.name, ignore=ignore)
            write_json(copy / "snapshot.json", {"code": code_version(), "commit": commit()})
            try:
                copy.rename(target)
            except OSError:
                if not target.exists():  # else: another launcher was first
                    raise
    return target
