"""The store: a folder of stages. A result counts only if it is here.

    STORE/stages/ab/abcdef0123456789/
        config.json provenance.json metrics.jsonl checkpoint/ result.json correct.npz
        failures/NNN.json attempts.jsonl claim
    STORE/sweeps/<grid name>/  grid.json trials.jsonl jobs.jsonl logs/

A stage is done if and only if `result.json` exists. It is written last, so all other files are
complete then. Commands that only read (status, rows, a dry run) write nothing. `launch` and its
workers move damaged files aside and train their stages again.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from harness.errors import UserError
from harness.files import Damaged, create, make_folder, move_aside, read_json, write_json
from harness.schema import StageConfig
from harness.states import FINISHED
from harness.store.claims import Claim
from harness.store.identity import STAGE_ID, digest, stage_id

UNREADABLE = "unreadable"  # the class of a failure whose record cannot be read
SCORES = ("top1", "loss")
COUNTS = ("params_total", "params_nonzero", "params_prunable", "macs_dense", "macs_nonzero")
SWEEP_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class Store:
    """The store in the folder `root`, which need not exist until something is written."""

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
        """Return the folder of a sweep. Raises UserError for a name that could leave the store."""
        if not SWEEP_NAME.fullmatch(name):
            raise UserError(
                f"{name!r} is not a valid name of a sweep: use letters, digits, '.', '_' and '-', "
                "beginning with a letter or digit, 100 characters at most"
            )
        return self.root / "sweeps" / name

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
        return (self.folder(stage) / "result.json").exists()

    def has_weights(self, stage: str) -> bool:
        """Return whether the stage has final weights, from which children can start."""
        return (self.folder(stage) / "checkpoint" / "final.pt").exists()

    def newest_step(self, stage: str) -> int:
        """Return the optimizer steps of the newest checkpoint; 0 if there is none."""
        paths = (self.folder(stage) / "checkpoint").glob("step-*.pt")
        matches = [re.match(r"step-(\d+)", path.name) for path in paths]
        return max((int(match[1]) for match in matches if match), default=0)

    def result(self, stage: str) -> dict[str, Any]:
        """Return the stage's result, checked against its config.

        Raises FileNotFoundError, or Damaged.
        """
        folder = self.folder(stage)
        result = read_json(folder / "result.json")
        if result.get("stage") != stage or result.get("status") not in FINISHED:
            raise Damaged(f"{folder / 'result.json'} is not a result of stage {stage}")
        if problem := _wrong_type(result):
            raise Damaged(f"{folder / 'result.json'} is not what a worker writes: {problem}")
        try:
            config_id = digest(read_json(folder / "config.json"))
        except FileNotFoundError as error:
            raise Damaged(f"{folder / 'config.json'} is missing beside a result") from error
        if config_id != stage:
            raise Damaged(
                f"{folder / 'config.json'} does not match its stage: its id is {config_id}, "
                f"so the result of {stage} cannot be trusted"
            )
        return result

    def results(self, stages: set[str]) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
        """Return the results of the `stages` that are done, and a message for each damaged one."""
        good: dict[str, dict[str, Any]] = {}
        damaged: dict[str, str] = {}
        for stage in self.ids() & stages:
            try:
                good[stage] = self.result(stage)
            except FileNotFoundError:
                continue
            except Damaged as error:
                damaged[stage] = str(error)
            except PermissionError as error:
                raise UserError(
                    f"{error.filename} cannot be read: give read permission on the store "
                    f"{self.root}, or choose another with store=PATH"
                ) from error
        return good, damaged

    def set_aside(self, stage: str, why: str, kind: str = "damaged") -> None:
        """Move the result aside, and a config that does not match: the stage is trained again.

        `kind` is "replaced" for a good result that is to be made again.
        """
        folder = self.folder(stage)
        if (folder / "result.json").exists():
            move_aside(folder / "result.json", why, kind)
        try:
            if digest(read_json(folder / "config.json")) == stage:
                return
        except FileNotFoundError:
            return
        except Damaged:
            pass
        move_aside(folder / "config.json", f"{folder / 'config.json'} does not match its stage")

    def damaged_files(self, stages: Iterable[str]) -> set[Path]:
        """Return the damaged files of these stages that were moved aside so far."""
        return {path for stage in stages for path in self.folder(stage).rglob("*.damaged-*")}

    def prepare(self, stage: str, config: StageConfig) -> Path:
        """Create the stage's folder with its config, and return its path."""
        if stage_id(config) != stage:
            raise ValueError(f"the config of stage {stage_id(config)} was given for stage {stage}")
        folder = make_folder(self.folder(stage))
        path = folder / "config.json"
        try:
            if digest(read_json(path)) == stage:
                return folder
            move_aside(path, f"{path} does not match its stage {stage}")
        except FileNotFoundError:
            pass
        except Damaged as error:
            move_aside(path, str(error))
        write_json(path, config.model_dump(mode="json"))
        return folder

    def finish(self, stage: str, claim: Claim, result: dict[str, Any]) -> None:
        """Write the result, the last file. Raises ClaimLost if another worker has the stage now."""
        claim.verify()
        write_json(self.folder(stage) / "result.json", {"stage": stage, **result})

    def failures(self, stage: str) -> list[dict[str, Any]]:
        """Return the stage's failures, oldest first. Each has a class and a message."""
        failures = []
        for path in sorted((self.folder(stage) / "failures").glob("*.json")):
            try:
                record = read_json(path)
                if not all(isinstance(record.get(key), str) for key in ("class", "message")):
                    raise Damaged(f"{path} is not the record of a failure")
                failures.append(record)
            except Damaged as error:
                failures.append({"class": UNREADABLE, "message": str(error), "time": 0.0})
        return failures

    def record_failure(self, stage: str, failure: dict[str, Any]) -> None:
        """Write `failures/NNN.json`. Two writers at the same time get different numbers."""
        folder = make_folder(self.folder(stage) / "failures")
        number = len(list(folder.glob("*.json"))) + 1
        record = json.dumps({"time": time.time(), **failure}, indent=1, allow_nan=False)
        while not create(folder / f"{number:03d}.json", f"{record}\n".encode()):
            number += 1

    def own_log(self, name: object) -> Path | None:
        """Return the path of a log that a file of the store names; None if it is not in `logs`.

        A store may come from someone else, and logs are printed: no other file may be shown.
        """
        if not isinstance(name, str | Path) or not str(name):
            return None
        try:
            path = Path(name).resolve()
            parts = path.relative_to(self.root.resolve()).parts
        except (OSError, ValueError, RuntimeError):
            return None
        return path if parts[:1] == ("sweeps",) and parts[2:3] == ("logs",) else None


def _wrong_type(result: Mapping[str, Any]) -> str | None:
    """Return what is wrong with the types in a result, or None."""

    def is_number(value: Any) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool)

    timing = result.get("timing")
    if not isinstance(timing, dict) or not is_number(timing.get("gpu_seconds")):
        return "timing.gpu_seconds is not a number"
    for name in ("val", "test", "counts"):
        part = result.get(name)
        if part is not None and not isinstance(part, dict):
            return f"{name} is not an object"
        for key, value in (part or {}).items():
            if key in SCORES + COUNTS and value is not None and not is_number(value):
                return f"{name}.{key} is not a number"
    for name in ("epochs", "examples", "train_macs"):
        if result.get(name) is not None and not is_number(result[name]):
            return f"{name} is not a number"
    return None
