"""What a stage was made with: recorded beside its config, compared when rows share a table."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

from harness.files import Damaged, read_json, write_json
from harness.plugins import load_plugins

PACKAGES = (
    "torch", "torchvision", "numpy", "deepspeed", "timm", "ffcv", "submitit", "pillow",
    "opencv-python",
)  # fmt: skip
SOURCE = Path(__file__).resolve().parent.parent


@functools.cache
def code_version() -> str:
    """12 hex digits over the contents of all source files of `harness`: equal code, equal name."""
    sha = hashlib.sha256()
    for path in sorted(SOURCE.rglob("*.py")):
        sha.update(path.relative_to(SOURCE).as_posix().encode() + b"\0")
        sha.update(hashlib.sha256(path.read_bytes()).digest())
    return sha.hexdigest()[:12]


@functools.cache
def commit() -> str | None:
    """Commit of the checkout that runs, with `+changes` when `harness` has uncommitted ones.

    New files are changes, too: they run. The rest of the checkout does not count. A snapshot
    (`cluster/snapshot.py`) says what it was taken from.
    """
    taken = SOURCE.parent / "snapshot.json"
    if taken.exists():
        with contextlib.suppress(Damaged):
            return read_json(taken).get("commit")
    try:
        head = _git("describe", "--always", "--abbrev=12", "--exclude=*")
        changes = _git("status", "--porcelain", "--untracked-files=all", "--", ".")
    except (OSError, subprocess.SubprocessError):
        return None
    return head + ("+changes" if changes else "") if head else None


def _git(*words: str) -> str:
    """What git says of the folder of the source files."""
    said = subprocess.run(
        ["git", *words], cwd=SOURCE, capture_output=True, text=True, timeout=10, check=True
    )
    return said.stdout.strip()


@functools.cache
def versions() -> dict[str, str]:
    """Installed versions of the packages that can change a number."""
    found = {}
    for name in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def record(folder: Path, facts: dict[str, Any]) -> None:
    """Add this run of the stage to `provenance.json`, unless the last one was the same.

    `facts`: engine, zero_stage, world_size, micro_batch_size, loader, stored, split_hash,
    memory_format, device, threads, deterministic. Code and package versions are added here, and
    name and content of the plug-in files where there are any.
    """
    entry = {"code": code_version(), "commit": commit(), "packages": versions(), **facts}
    if plugins := load_plugins():
        entry["plugins"] = [{"file": p.path.name, "sha256": p.sha256} for p in plugins]
    path = folder / "provenance.json"
    try:
        records = read_json(path)["records"]
    except (FileNotFoundError, Damaged, KeyError):
        records = []
    if not records or records[-1] != entry:
        write_json(path, {"records": [*records, entry]})


def records(folder: Path) -> list[dict[str, Any]]:
    """Every distinct way in which the stage was run, oldest first; empty when none is recorded."""
    try:
        found = read_json(folder / "provenance.json").get("records", [])
    except (FileNotFoundError, Damaged):
        return []
    return [entry for entry in found if isinstance(entry, dict)]
