"""The store: a folder of stages. A result counts only if it is here.

    STORE/stages/ab/abcdef0123456789/
        config.json provenance.json metrics.jsonl checkpoint/ result.json correct.npz
        failures/NNN.json attempts.jsonl claim
    STORE/sweeps/<grid name>/  grid.json trials.jsonl jobs.jsonl logs/

A stage is done if and only if its `result.json` exists. This file is written last, so all other
files of the stage are complete when it exists. Commands that only read (status, rows, a dry run)
write nothing. `launch` and its workers move damaged files aside and train their stages again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from harness.errors import UserError
from harness.files import Damaged, create, make_folder, move_aside, write_json
from harness.schema import StageConfig
from harness.states import FINISHED
from harness.store.claims import INT32_MAX, Claim, remove_leftovers
from harness.store.identity import STAGE_ID, digest, identity, stage_id
from harness.store.records import (
    LONGEST,
    Count,
    Number,
    Record,
    Seconds,
    Share,
    check,
    check_seal,
    misplaced,
    read_bytes,
    read_json,
    read_lines,
    write_sealed,
)

UNREADABLE = "unreadable"  # the class of a failure whose record cannot be read
OLD_RESULT_KEYS = (
    "stage", "status", "epochs", "steps", "examples", "counts", "params_training", "train_macs",
    "sparsity", "mask_hash", "protected", "val_before", "split_hash", "timing", "val", "test",
    "train", "weights_sha256",
)  # fmt: skip
"""Keys of the results that were written before results had a digest."""
CORRECT_DIGEST = "correct_sha256"  # key of a result: `Store.correct_digest` of its stage
FOLDERS = ("checkpoint", "failures")  # inside the folder of a stage
ASIDE = re.compile(r"\.(damaged|replaced)-[0-9]+$")  # names of entries that were moved aside
CHECKPOINT = re.compile(r"step-([0-9]{8}|[1-9][0-9]{8,14})\.pt")  # as the trainer names them
SWEEP_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class Store:
    """The store in the folder `root`. The folder is created when the first file is written."""

    def __init__(self, root: Path):
        self.root = root.absolute()
        try:
            existing = next(path for path in (self.root, *self.root.parents) if path.exists())
        except OSError as error:
            raise UserError(
                f"the store {str(self.root)[:80]}... cannot be used ({error.strerror}): choose "
                "another with store=PATH"
            ) from error
        if not existing.is_dir():
            raise UserError(
                f"the store {self.root} is not a folder, because {existing} is a file: choose "
                "another with store=PATH"
            )

    def folder(self, stage: str) -> Path:
        """Return the folder of a stage. Raises ValueError if the id is not 16 hex digits."""
        if not STAGE_ID.fullmatch(stage):
            raise ValueError(f"{stage!r} is not a stage id (16 hex digits)")
        return self.root / "stages" / stage[:2] / stage

    def sweep_folder(self, name: str) -> Path:
        """Return the folder of a sweep. Raises UserError if it could be outside of the store."""
        if not SWEEP_NAME.fullmatch(name):
            raise UserError(
                f"{name!r} is not a valid name of a sweep: use letters, digits, '.', '_' and '-', "
                "beginning with a letter or digit, 100 characters at most"
            )
        folder = self.root / "sweeps" / name
        for path in (folder, folder / "logs"):
            if problem := misplaced(path, is_folder=True):
                raise UserError(f"{problem}: move it, or choose another store with store=PATH")
        return folder

    def ids(self) -> set[str]:
        """Return the ids of all stages that have a folder, finished or not."""
        ids: set[str] = set()
        stages = self.root / "stages"
        if not stages.is_dir():
            return ids
        for prefix in os.scandir(stages):
            if prefix.is_dir():
                ids.update(e.name for e in os.scandir(prefix.path) if STAGE_ID.fullmatch(e.name))
        return ids

    def is_done(self, stage: str) -> bool:
        """Return whether the stage has a result."""
        return _is_file(self.folder(stage) / "result.json")

    def has_weights(self, stage: str) -> bool:
        """Return whether the stage has final weights, from which children can start."""
        path = self.folder(stage) / "checkpoint" / "final.pt"
        return _is_file(path) and not path.parent.is_symlink()

    def has_start(self, config: StageConfig) -> bool:
        """Return whether the store has what a stage starts from, if it starts from another one.

        That is the final weights of its parent, or the last checkpoint of the stage it continues.
        """
        if config.continues is not None:
            return self.newest_step(config.continues.stage) > 0
        return config.parent is None or self.has_weights(config.parent)

    def newest_step(self, stage: str) -> int:
        """Return the optimizer steps of the newest checkpoint; 0 if there is none."""
        return max(checkpoint_steps(self.folder(stage)), default=0)

    def result(self, stage: str) -> dict[str, Any]:
        """Return the stage's result, after checking its digest and the id of its config.

        Raises FileNotFoundError if the stage is not done, and Damaged if a file is not valid or a
        link is in the place of the stage's folder.
        """
        folder = self.folder(stage)
        if problem := misplaced(folder, is_folder=True):
            raise Damaged(problem)
        path = folder / "result.json"
        result = read_json(path)
        check_seal(path, result, OLD_RESULT_KEYS)
        content = check(path, result, _Result)
        if content.stage != stage or content.status not in FINISHED:
            raise Damaged(f"{path} is not a result of stage {stage}")
        try:
            problem = self._config_problem(stage)
        except FileNotFoundError as error:
            problem = f"{error.filename} is missing, although the stage has a result"
        if problem:
            raise Damaged(problem)
        return result

    def _config_problem(self, stage: str) -> str | None:
        """Return what is wrong with the config of a stage, or None. Raises FileNotFoundError."""
        path = self.folder(stage) / "config.json"
        try:
            config_id = digest(read_json(path))
        except Damaged as error:
            return str(error)
        if config_id == stage:
            return None
        return f"{path} does not match its stage: has id {config_id}"

    def set_aside(self, stage: str, why: str, kind: str = "damaged") -> None:
        """Move the stage's result aside, so that the stage is trained again.

        A config that does not match the stage is moved, too. `why` is the printed reason for moving
        the result. `kind` is "replaced" if the result is not damaged but must be computed again.
        """
        folder = self.folder(stage)
        if os.path.lexists(folder / "result.json"):
            move_aside(folder / "result.json", why, kind)
        with contextlib.suppress(FileNotFoundError):
            if problem := self._config_problem(stage):
                move_aside(folder / "config.json", problem)

    def replace_folder(self, stage: str) -> bool:
        """Move aside a link or file in the place of a stage's folder; return whether there was one.

        A link may lead to the folder of another stage or user, which must not be changed.
        """
        folder = self.folder(stage)
        problem = misplaced(folder, is_folder=True)
        if problem is not None:
            move_aside(folder, problem)
        return problem is not None

    def clean(self, stage: str) -> None:
        """Move links and entries of a wrong kind out of the way of later writes to a stage.

        A write through a link would change a file outside of the stage. Temporary files of killed
        writers are removed. This process must hold the claim of the stage.
        """
        folder = self.folder(stage)
        for parent in (folder, *(folder / name for name in FOLDERS)):
            remove_leftovers(parent, is_claimed=True)
            for path in sorted(parent.iterdir()) if parent.is_dir() else []:
                is_folder = path.is_dir() and not path.suffix and path.name != "claim"
                problem = misplaced(path, is_folder or path.name in FOLDERS)
                if problem and not ASIDE.search(path.name):
                    move_aside(path, problem)

    def damaged_files(self, stages: Iterable[str]) -> set[Path]:
        """Return the damaged files of these stages that have been moved aside."""
        files: set[Path] = set()
        for stage in stages:
            folder = self.folder(stage)
            files.update(folder.rglob("*.damaged-*"), folder.parent.glob(f"{stage}.damaged-*"))
        return files

    def prepare(self, stage: str, config: StageConfig) -> Path:
        """Create the stage's folder with its config, and return its path."""
        if stage_id(config) != stage:
            raise ValueError(f"the config belongs to stage {stage_id(config)}, not to {stage}")
        self.replace_folder(stage)
        folder = make_folder(self.folder(stage))
        path = folder / "config.json"
        with contextlib.suppress(FileNotFoundError):
            if (problem := self._config_problem(stage)) is None:
                return folder
            move_aside(path, problem)
        write_json(path, identity(config))
        return folder

    def finish(self, stage: str, claim: Claim, result: dict[str, Any]) -> None:
        """Write the result, which must be the last file of the stage to be written.

        Raises ClaimLost if another worker has taken the stage over.
        """
        claim.verify()
        content = {"stage": stage, CORRECT_DIGEST: self.correct_digest(stage), **result}
        write_sealed(self.folder(stage) / "result.json", content)

    def correct_digest(self, stage: str) -> str | None:
        """Return the SHA-256 of `correct.npz`, or None if the file is missing or damaged.

        A stage that diverged has no such file.
        """
        with contextlib.suppress(FileNotFoundError, Damaged):
            content = read_bytes(self.folder(stage) / "correct.npz", longest=LONGEST)
            return hashlib.sha256(content).hexdigest()
        return None

    def last_attempt(self, stage: str) -> dict[str, Any]:
        """Return the record of the job that began to train the stage last; empty if none did."""
        attempts = read_lines(self.folder(stage) / "attempts.jsonl")
        return attempts[-1] if attempts else {}

    def failures(self, stage: str) -> list[dict[str, Any]]:
        """Return the stage's records of failures, oldest first. Each has a class and a message."""
        folder = self.folder(stage) / "failures"
        if problem := misplaced(folder, is_folder=True):
            return [{"class": UNREADABLE, "message": problem, "time": 0.0}]
        failures = []
        for path in sorted(folder.glob("*.json")):
            try:
                record = read_json(path)
                check(path, record, _Failure)
                failures.append(record)
            except Damaged as error:
                failures.append({"class": UNREADABLE, "message": str(error), "time": 0.0})
        return failures

    def record_failure(self, stage: str, failure: dict[str, Any]) -> None:
        """Write `failures/NNN.json`. Two writers at the same time get different numbers."""
        folder = self.folder(stage) / "failures"
        if problem := misplaced(folder, is_folder=True):
            move_aside(folder, problem)
        make_folder(folder)
        number = len(list(folder.glob("*.json"))) + 1
        record = json.dumps({"time": time.time(), **failure}, indent=1, allow_nan=False)
        while not create(folder / f"{number:03d}.json", f"{record}\n".encode()):
            number += 1

    def relative(self, path: str | Path) -> str:
        """Return `path` relative to the store, so that it stays valid if the store is moved.

        A path outside of the store is returned as an absolute path.
        """
        path = Path(path).resolve()
        root = self.root.resolve()
        return str(path.relative_to(root) if path.is_relative_to(root) else path)

    def own_log(self, name: object) -> Path | None:
        """Return the path of a sweep's log in this store, given the path in a record.

        The path in a record is relative to the store. In records of older versions it is absolute,
        and the store may have been moved since. So only the part from `sweeps/` on is used. Returns
        None for a path that does not lead to a log of this store. The caller prints the file, and a
        record that another person wrote could name a private file of this user.
        """
        parts = Path(name).parts if isinstance(name, str | Path) else ()
        starts = [  # of `sweeps/NAME/logs`
            i for i, part in enumerate(parts) if part == "sweeps" and "logs" in parts[i + 2 : i + 3]
        ]
        if not starts:
            return None
        root = self.root.resolve()
        try:
            path = root.joinpath(*parts[starts[-1] :]).resolve()
            sweeps, _, logs, *_ = path.relative_to(root).parts  # links and `..` are resolved
            is_readable = path.is_file() or path.is_dir() or not path.exists()  # so not a pipe
        except (OSError, ValueError, RuntimeError):
            return None
        return path if (sweeps, logs) == ("sweeps", "logs") and is_readable else None


def checkpoint_steps(folder: Path) -> list[int]:
    """Return the optimizer steps of the checkpoints in a stage's folder, newest first."""
    names = (path.name for path in (folder / "checkpoint").glob("step-*.pt"))
    matches = map(CHECKPOINT.fullmatch, names)
    return sorted((int(match[1]) for match in matches if match), reverse=True)


def gpu_seconds(result: Mapping[str, Any]) -> float:
    """Return the device-seconds of a stage's whole training, with those of what it continued."""
    own: float = result["timing"]["gpu_seconds"]
    continued = result.get("continued")
    return own if continued is None else own + continued["gpu_seconds"]


def own_epochs(result: Mapping[str, Any], epochs: int) -> int:
    """Return how many of a stage's `epochs` were trained in the time that its result has."""
    continued = result.get("continued")
    return epochs if continued is None else epochs - continued["epoch"]


def _is_file(path: Path) -> bool:
    """Return whether `path` is a regular file, not a link to one."""
    return path.is_file() and not path.is_symlink()


class _Scores(Record):
    top1: Share | None = None
    loss: Number | None = None
    top5: Share | None = None
    calibration_error: Share | None = None
    worst_class: Share | None = None
    class_spread: Share | None = None


class _Timing(Record):
    gpu_seconds: Seconds


class _Counts(Record):
    params_total: Count | None = None
    params_nonzero: Count | None = None
    params_prunable: Count | None = None
    macs_dense: Count | None = None
    macs_nonzero: Count | None = None


class Continued(Record):
    """The stage that another one continued; `gpu_seconds` are all that were spent until then."""

    stage: Annotated[str, Field(pattern=f"^{STAGE_ID.pattern}$")]
    epoch: Count
    gpu_seconds: Seconds


class _Result(Record):
    """The keys of a result that are checked when it is read.

    A stage that continued another one has the counts of its whole training, since the first epoch,
    but the time of its own part.
    """

    stage: str
    status: str
    timing: _Timing
    val: _Scores | None = None
    test: _Scores | None = None
    counts: _Counts | None = None
    epochs: Count | None = None
    examples: Count | None = None
    train_macs: Number | None = None
    sparsity: Annotated[float, Field(ge=0, le=1)] | None = None
    continued: Continued | None = None


class _Failure(Record):
    """The keys of a record of a failure that are checked when it is read."""

    class_: str = Field(alias="class")
    message: str
    step: Count | None = None
    micro_batch_size: Annotated[int, Field(gt=0, le=INT32_MAX)] | None = None
    job: str | None = None
    attempt: Annotated[int, Field(ge=0, le=INT32_MAX)] | None = None
    again: bool = False


SCORES = tuple(_Scores.model_fields)  # keys of a result's `val` and `test`
COUNTS = tuple(_Counts.model_fields)
