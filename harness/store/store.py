"""The store: a folder of finished stages, the only thing that is ever believed.

    STORE/stages/ab/abcdef0123456789/
        config.json provenance.json metrics.jsonl checkpoint/ result.json correct.npz
        failures/NNN.json attempts.jsonl claim
    STORE/sweeps/<grid name>/  grid.json trials.jsonl jobs.jsonl logs/

`result.json` exists <=> the stage is done. It is written last, so everything beside it is whole.
Verbs that only look (status, rows, a dry run) keep nothing here; `launch` and its workers move
damaged files aside and do their stage again.
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
from harness.files import (
    Damaged,
    create,
    make_folder,
    move_aside,
    read_json,
    write_json,
)
from harness.schema import StageConfig
from harness.store.claims import Claim
from harness.store.identity import STAGE_ID, digest, stage_id

UNREADABLE = "unreadable"  # class of a failure's record that cannot be read
SCORES = ("top1", "loss")
COUNTS = ("params_total", "params_nonzero", "params_prunable", "macs_dense", "macs_nonzero")
SWEEP_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class Store:
    """The folder at `root`; it need not exist until something is written."""

    def __init__(self, root: Path):
        self.root = root.absolute()
        try:
            there = next(path for path in (self.root, *self.root.parents) if path.exists())
        except OSError as error:
            raise UserError(
                f"the store {str(self.root)[:80]}... cannot be used ({error.strerror}): choose "
                "another with store=PATH"
            ) from error
        if not there.is_dir():
            raise UserError(
                f"the store {self.root} is not a folder, because {there} is a file: choose another "
                "with store=PATH"
            )

    def folder(self, stage: str) -> Path:
        """Folder of a stage. Raises ValueError for what is not 16 hex digits."""
        if not STAGE_ID.fullmatch(stage):
            raise ValueError(f"{stage!r} is not a stage id (16 hex digits)")
        return self.root / "stages" / stage[:2] / stage

    def sweep_folder(self, name: str) -> Path:
        """Folder of a sweep; its name may not lead out of the store."""
        if not SWEEP_NAME.fullmatch(name):
            raise UserError(
                f"{name!r} cannot name a sweep: use letters, digits, '.', '_' and '-', "
                "beginning with a letter or digit"
            )
        return self.root / "sweeps" / name

    def ids(self) -> set[str]:
        """Stages that have a folder, finished or not."""
        found: set[str] = set()
        stages = self.root / "stages"
        if not stages.is_dir():
            return found
        for prefix in os.scandir(stages):
            if prefix.is_dir():
                found.update(e.name for e in os.scandir(prefix.path) if STAGE_ID.fullmatch(e.name))
        return found

    def is_done(self, stage: str) -> bool:
        """Whether its result file is there."""
        return (self.folder(stage) / "result.json").exists()

    def has_weights(self, stage: str) -> bool:
        """Whether children can start from it."""
        return (self.folder(stage) / "checkpoint" / "final.pt").exists()

    def newest_step(self, stage: str) -> int:
        """Optimizer steps of the newest checkpoint; 0 where there is none."""
        names = (self.folder(stage) / "checkpoint").glob("step-*.pt")
        steps = [re.match(r"step-(\d+)", path.name) for path in names]
        return max((int(found[1]) for found in steps if found), default=0)

    def result(self, stage: str) -> dict[str, Any]:
        """Its result, checked to belong to it. Raises FileNotFoundError, or Damaged."""
        folder = self.folder(stage)
        result = read_json(folder / "result.json")
        if result.get("stage") != stage or result.get("status") not in ("done", "diverged"):
            raise Damaged(f"{folder / 'result.json'} is not a result of stage {stage}")
        if problem := _misshapen(result):
            raise Damaged(f"{folder / 'result.json'} is not what a worker writes: {problem}")
        try:
            found = digest(read_json(folder / "config.json"))
        except FileNotFoundError as error:
            raise Damaged(f"{folder / 'config.json'} is missing beside a result") from error
        if found != stage:
            raise Damaged(
                f"{folder / 'config.json'} does not match its stage: it is the config of {found}, "
                f"so the result of {stage} cannot be trusted"
            )
        return result

    def results(self, stages: set[str]) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
        """Results of those `stages` that are done, and a sentence for each damaged one."""
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
        """Move a result (and a config that belies it) aside: the stage is done again.

        A whole result, which has to be made anew, is of the kind "replaced".
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
        """The damaged files of these stages that were moved aside so far."""
        return {path for stage in stages for path in self.folder(stage).rglob("*.damaged-*")}

    def prepare(self, stage: str, config: StageConfig) -> Path:
        """Make the stage's folder with its config in it, and give its path."""
        if stage_id(config) != stage:
            raise ValueError(f"config of {stage_id(config)} offered as stage {stage}")
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
        """Write the result, last of all. Raises ClaimLost when the stage is another's by now."""
        claim.verify()
        write_json(self.folder(stage) / "result.json", {"stage": stage, **result})

    def failures(self, stage: str) -> list[dict[str, Any]]:
        """What went wrong with a stage so far, oldest first; each has a class and a message."""
        found = []
        for path in sorted((self.folder(stage) / "failures").glob("*.json")):
            try:
                record = read_json(path)
                if not all(isinstance(record.get(key), str) for key in ("class", "message")):
                    raise Damaged(f"{path} is no record of a failure")
                found.append(record)
            except Damaged as error:
                found.append({"class": UNREADABLE, "message": str(error), "time": 0.0})
        return found

    def record_failure(self, stage: str, failure: dict[str, Any]) -> None:
        """Add `failures/NNN.json`; of two writers at once each gets a number of its own."""
        folder = make_folder(self.folder(stage) / "failures")
        number = len(list(folder.glob("*.json"))) + 1
        record = json.dumps({"time": time.time(), **failure}, indent=1, allow_nan=False)
        while not create(folder / f"{number:03d}.json", f"{record}\n".encode()):
            number += 1

    def own_log(self, said: object) -> Path | None:
        """A log as a file of the store names it, or None: what is not under its `logs` is no log.

        A store may come from anyone, and what logs hold is printed.
        """
        if not isinstance(said, str | Path) or not str(said):
            return None
        try:
            path = Path(said).resolve()
            parts = path.relative_to(self.root.resolve()).parts
        except (OSError, ValueError, RuntimeError):
            return None
        return path if parts[:1] == ("sweeps",) and parts[2:3] == ("logs",) else None


def _misshapen(result: Mapping[str, Any]) -> str | None:
    """What is wrong with the types of a result, where something is."""

    def number(value: Any) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool)

    timing = result.get("timing")
    if not isinstance(timing, dict) or not number(timing.get("gpu_seconds")):
        return "timing.gpu_seconds is no number"
    for name in ("val", "test", "counts"):
        part = result.get(name)
        if part is not None and not isinstance(part, dict):
            return f"{name} is no object"
        for key, value in (part or {}).items():
            if key in SCORES + COUNTS and value is not None and not number(value):
                return f"{name}.{key} is no number"
    for name in ("epochs", "examples", "train_macs"):
        if result.get(name) is not None and not number(result[name]):
            return f"{name} is no number"
    return None
