"""Record with which code, packages and settings a stage was trained, in a file beside its config.

The analysis compares these records, and warns if the rows of one table differ in them.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import subprocess
from collections.abc import Collection, Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from harness.files import Damaged, move_aside
from harness.plugins import load_plugins
from harness.store.identity import digest
from harness.store.records import Record, check, check_seal, read_json, write_sealed

PACKAGES = (
    "torch", "torchvision", "numpy", "deepspeed", "timm", "ffcv", "submitit", "pillow",
    "opencv-python",
)  # fmt: skip
RECORDED = {
    "code": "digest of the harness's source that every stage uses",
    "engine": "deepspeed or ddp",
    "zero_stage": "ZeRO stage",
    "world_size": "ranks",
    "micro_batch_size": "per rank, where set",
    "loader": "the loader that read the images",
    "stored": "how the images were changed when written: sizes, quality, omissions; or original",
    "split_hash": "digest of the ids of the images in train, validation and test",
    "memory_format": "contiguous or channels_last",
    "device": "cpu, or the GPU's name",
    "threads": "torch threads of a rank on CPU",
    "deterministic": "whether deterministic algorithms were required",
    "torch": "version",
    "deepspeed": "version",
}
"""Columns of a row that state how its last stage was trained, with their meanings.

A record has keys of the same names, except that versions of packages are under its key `packages`.
"""
SOURCE = Path(__file__).resolve().parent.parent
USED = ("augment", "compress", "data", "models", "train", "rng.py", "fields.py", "schema.py")
"""Source files and folders that can change a number; the others plan, schedule, store or print."""
OPTIONAL = ("augment/ops.py", "compress/methods/", "compress/surplus/", "models/families/")
"""Of these source files, only those that a stage uses can have changed its numbers."""
PLUGIN = "plugin "  # prefix of a plug-in file's name among the source files of a record


@functools.cache
def _source_files() -> dict[str, str]:
    """Return 12 hex digits of the SHA-256 of each file in `USED`, by its path."""
    paths = [path for name in USED for path in (SOURCE / name, *(SOURCE / name).rglob("*.py"))]
    return {
        path.relative_to(SOURCE).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()[:12]
        for path in sorted(paths)
        if path.suffix == ".py"
    }


def is_optional(file: str) -> bool:
    """Return whether some stages do not use a source file."""
    return file.startswith((*OPTIONAL, PLUGIN)) and not file.endswith(("/__init__.py", "/base.py"))


@functools.cache
def code_version() -> str:
    """Return 12 hex digits of a hash over the source files that every stage uses."""
    core = {file: sha for file, sha in _source_files().items() if not is_optional(file)}
    return digest(core)[:12]


@functools.cache
def commit() -> str | None:
    """Return the commit of the checkout that runs, with `+changes` if `harness` has changes.

    A new file in `harness` is a change too. Files outside of `harness` are not considered. For a
    snapshot (`cluster/launch_folder.py`), the result is the commit that the snapshot was taken
    from. It is None without git.
    """
    snapshot = SOURCE.parent / "snapshot.json"
    if snapshot.exists():
        with contextlib.suppress(Damaged):
            recorded_commit = read_json(snapshot).get("commit")
            return recorded_commit if isinstance(recorded_commit, str) else None
    try:
        head = _git("describe", "--always", "--abbrev=12", "--exclude=*")
        changes = _git("status", "--porcelain", "--untracked-files=all", "--", ".")
    except (OSError, subprocess.SubprocessError):
        return None
    return head + ("+changes" if changes else "") if head else None


def _git(*words: str) -> str:
    """Return the output of a git command in the folder of the source files."""
    process = subprocess.run(
        ["git", *words], cwd=SOURCE, capture_output=True, timeout=10, check=True,
        encoding="utf-8", errors="replace",
    )  # fmt: skip
    return process.stdout.strip()


@functools.cache
def versions() -> dict[str, str]:
    """Return the installed versions of the packages that can change a number."""
    installed = {}
    for name in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            installed[name] = metadata.version(name)
    return installed


def record(folder: Path, modules: Collection[str], facts: dict[str, Any]) -> None:
    """Add a record of this run to `provenance.json`, unless it equals the last record.

    `modules` are the names of the optional modules that the stage uses, and `facts` has the entries
    of `RECORDED` that only the trainer knows. This function adds the code, the versions of packages
    and the name and hash of each plug-in file.
    """
    used = {name.removeprefix("harness.").replace(".", "/") + ".py" for name in modules}
    files = {f: sha for f, sha in _source_files().items() if f in used or not is_optional(f)}
    plugins = load_plugins()
    files |= {f"{PLUGIN}{p.path.name}": p.sha256[:12] for p in plugins if p.module in modules}
    entry = {"code": code_version(), "commit": commit(), "packages": versions(), **facts}
    entry["files"] = files
    if plugins:
        entry["plugins"] = [{"file": p.path.name, "sha256": p.sha256} for p in plugins]
    path = folder / "provenance.json"
    earlier = []
    try:
        earlier = _read(path)
    except FileNotFoundError:
        pass
    except Damaged as error:
        move_aside(path, str(error))
    if earlier[-1:] != [entry]:
        write_sealed(path, {"records": [*earlier, entry]})


def records(folder: Path) -> list[dict[str, Any]]:
    """Return the records of a stage's runs, oldest first; none if their file is damaged."""
    with contextlib.suppress(FileNotFoundError, Damaged):
        return _read(folder / "provenance.json")
    return []


def _read(path: Path) -> list[dict[str, Any]]:
    content = read_json(path)
    check_seal(path, content, ["records"])
    return check(path, content, _Provenance).records


class _Provenance(Record):
    records: list[dict[str, Any]]


def recorded(record: Mapping[str, Any], column: str) -> Any:
    """Return the value of one of the columns in `RECORDED`; None if the record lacks it."""
    source: Any = record.get("packages") if column in PACKAGES else record
    value = source.get(column) if isinstance(source, Mapping) else None
    return value if isinstance(value, str | int | float) else None


def differing_files(records: Iterable[Mapping[str, Any]]) -> set[str]:
    """Return the source files whose contents differ between the records.

    A file that some records lack, for example a new one, differs too. An optional file does not:
    the stages of these records did not use it.
    """
    recorded_files = [files for entry in records if (files := source_files(entry))]
    differing = set()
    for file in {file for files in recorded_files for file in files}:
        contents = {files.get(file) for files in recorded_files}
        if len(contents - {None} if is_optional(file) else contents) > 1:
            differing.add(file)
    return differing


def source_files(record: Mapping[str, Any]) -> dict[str, str]:
    """Return the digests of the source files of a record; records of older versions have none."""
    files = record.get("files")
    files = files if isinstance(files, dict) else {}
    return {name: sha for name, sha in files.items() if isinstance(sha, str)}
