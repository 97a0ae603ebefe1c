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
SCORES = ("top1", "loss")  # keys of a result's `val` and `test`
COUNTS = ("params_total", "params_nonzero", "params_prunable", "macs_dense", "macs_nonzero")
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
        """Return the stage's result, after checking that its config has the id of the stage.

        Raises FileNotFoundError if the stage is not done, or Damaged if a file is not valid.
        """
        folder = self.folder(stage)
        result = read_json(folder / "result.json")
        if result.get("stage") != stage or result.get("status") not in FINISHED:
            raise Damaged(f"{folder / 'result.json'} is not a result of stage {stage}")
        if problem := _wrong_type(result):
            raise Damaged(f"{folder / 'result.json'} is not a valid result: {problem}")
        try:
            config_id = digest(read_json(folder / "config.json"))
        except FileNotFoundError as error:
            raise Damaged(
                f"{folder / 'config.json'} is missing, although the stage has a result"
            ) from error
        if config_id != stage:
            raise Damaged(
                f"{folder / 'config.json'} does not match its stage: its id is {config_id}, "
                f"so the result of {stage} cannot be trusted"
            )
        return result

    def results(self, stages: set[str]) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
        """Return the results of the `stages` that are done, and a message for each damaged one."""
        results: dict[str, dict[str, Any]] = {}
        damaged: dict[str, str] = {}
        for stage in self.ids() & stages:
            try:
                results[stage] = self.result(stage)
            except FileNotFoundError:
                continue
            except Damaged as error:
                damaged[stage] = str(error)
            except PermissionError as error:
                raise UserError(
                    f"{error.filename} cannot be read: give read permission on the store "
                    f"{self.root}, or choose another with store=PATH"
                ) from error
        return results, damaged

    def set_aside(self, stage: str, why: str, kind: str = "damaged") -> None:
        """Move the stage's result aside, so that it is trained again.

        A config that does not match the stage is moved, too. `why` is the reason for the result.
        `kind` is "replaced" for a result that is not damaged but has to be computed again.
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
        """Return all damaged files of these stages that have been moved aside until now."""
        return {path for stage in stages for path in self.folder(stage).rglob("*.damaged-*")}

    def prepare(self, stage: str, config: StageConfig) -> Path:
        """Create the stage's folder with its config, and return its path."""
        if stage_id(config) != stage:
            raise ValueError(f"the config belongs to stage {stage_id(config)}, not to {stage}")
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
        """Write the result, which must be the last file of the stage to be written.

        Raises ClaimLost if another worker has taken the stage over.
        """
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
        """Return `name`, a path that was read from a file of the store, if it is a log of a sweep.

        Returns None for any other path. The caller prints the file, and a store that comes from
        another person may name private files of this user.
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
    """Return which value of a result has a wrong type, or None if all types are right."""

    def is_number(value: Any) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool)

    timing = result.get("timing")
    if not isinstance(timing, dict) or not is_number(timing.get("gpu_seconds")):
        return "timing.gpu_seconds is not a number"
    for name in ("val", "test", "counts"):
        section = result.get(name)
        if section is not None and not isinstance(section, dict):
            return f"{name} is not an object"
        for key, value in (section or {}).items():
            if key in SCORES + COUNTS and value is not None and not is_number(value):
                return f"{name}.{key} is not a number"
    for name in ("epochs", "examples", "train_macs"):
        if result.get(name) is not None and not is_number(result[name]):
            return f"{name} is not a number"
    return None
