"""The user's tables that this process has read, for the processes and the jobs that it starts.

A config names a table by its file name and the digest of its content, so that the folder is not
part of any identity. Where the file lies is kept in an environment variable, as plug-ins are.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from harness.files import atomic_write, make_folder

TABLES = "HARNESS_TABLES"


def table_files() -> list[Path]:
    """Return the tables that this process, or the one that started it, has read."""
    return [Path(word) for word in os.environ.get(TABLES, "").split("\n") if word]


def remember_tables(files: Iterable[Path]) -> None:
    """Let this process, and those that it starts, find these tables by their file names."""
    absolute = [file.absolute() for file in files]
    os.environ[TABLES] = "\n".join(map(str, dict.fromkeys([*absolute, *table_files()])))


def copy_tables(folder: Path, suffixes: tuple[str, ...]) -> None:
    """Copy the tables with one of the `suffixes`, for jobs that may run on other machines."""
    for file in table_files():
        if file.suffix in suffixes and file.is_file():
            data = file.read_bytes()
            digest = hashlib.sha256(data).hexdigest()[:8]
            atomic_write(make_folder(folder / digest) / file.name, data)


def use_copies(folder: Path) -> None:
    """Let this process, and those that it starts, find the tables of `copy_tables`."""
    remember_tables(sorted(folder.glob("*/*")))
