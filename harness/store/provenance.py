"""With which code, packages and settings a stage was trained: recorded beside its config.

Rows of one table are compared in these facts, and a table warns where they differ.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from harness.files import Damaged, write_json
from harness.plugins import load_plugins
from harness.store.records import check_seal, read_json, sealed

PACKAGES = (
    "torch", "torchvision", "numpy", "deepspeed", "timm", "ffcv", "submitit", "pillow",
    "opencv-python",
)  # fmt: skip
RECORDED: dict[str, tuple[str, ...]] = {
    "code": ("code",),
    "engine": ("engine",),
    "zero_stage": ("zero_stage",),
    "world_size": ("world_size",),
    "micro_batch_size": ("micro_batch_size",),
    "loader": ("loader",),
    "stored": ("stored",),
    "split_hash": ("split_hash",),
    "memory_format": ("memory_format",),
    "device": ("device",),
    "threads": ("threads",),
    "deterministic": ("deterministic",),
    "torch": ("packages", "torch"),
    "deepspeed": ("packages", "deepspeed"),
}
"""Columns of a row that say how its last stage was trained, and their keys in a record."""
SOURCE = Path(__file__).resolve().parent.parent


@functools.cache
def code_version() -> str:
    """Return 12 hex digits of a hash over all source files of `harness`."""
    sha = hashlib.sha256()
    for path in sorted(SOURCE.rglob("*.py")):
        sha.update(path.relative_to(SOURCE).as_posix().encode() + b"\0")
        sha.update(hashlib.sha256(path.read_bytes()).digest())
    return sha.hexdigest()[:12]


@functools.cache
def commit() -> str | None:
    """Return the commit of the checkout that runs, with `+changes` if `harness` has changes.

    New files in `harness` are changes too, other files of the checkout are not. For a snapshot
    (`cluster/snapshot.py`), this is the commit that it was taken from. None without git.
    """
    snapshot = SOURCE.parent / "snapshot.json"
    if snapshot.exists():
        with contextlib.suppress(Damaged):
            return str(read_json(snapshot).get("commit"))
    try:
        head = _git("describe", "--always", "--abbrev=12", "--exclude=*")
        changes = _git("status", "--porcelain", "--untracked-files=all", "--", ".")
    except (OSError, subprocess.SubprocessError):
        return None
    return head + ("+changes" if changes else "") if head else None


def _git(*words: str) -> str:
    """Return the output of a git command in the folder of the source files."""
    process = subprocess.run(
        ["git", *words], cwd=SOURCE, capture_output=True, text=True, timeout=10, check=True
    )
    return process.stdout.strip()


@functools.cache
def versions() -> dict[str, str]:
    """Return the installed versions of the packages that can change a number."""
    installed = {}
    for name in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            installed[name] = metadata.version(name)
    return installed


def record(folder: Path, facts: dict[str, Any]) -> None:
    """Add a record of this run to `provenance.json`, unless it equals the last record.

    `facts` holds the entries of `RECORDED` that only the trainer knows. Code and package versions
    are added here, and the name and hash of each plug-in file.
    """
    entry = {"code": code_version(), "commit": commit(), "packages": versions(), **facts}
    if plugins := load_plugins():
        entry["plugins"] = [{"file": p.path.name, "sha256": p.sha256} for p in plugins]
    earlier = records(folder)
    if earlier[-1:] != [entry]:
        write_json(folder / "provenance.json", sealed({"records": [*earlier, entry]}))


def records(folder: Path) -> list[dict[str, Any]]:
    """Return the records of a stage's runs, oldest first; none if their file is damaged."""
    path = folder / "provenance.json"
    try:
        content = read_json(path)
        check_seal(path, content, ["records"])
    except (FileNotFoundError, Damaged):
        return []
    entries = content.get("records")
    return [e for e in entries if isinstance(e, dict)] if isinstance(entries, list) else []


def recorded(record: Mapping[str, Any], column: str) -> Any:
    """Return the value of one of the columns in `RECORDED`; None if the record lacks it."""
    value: Any = record
    for key in RECORDED[column]:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value
