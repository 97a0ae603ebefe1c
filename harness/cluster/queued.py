"""What SLURM still has of a store's sweeps, and who may hand it more.

A sweep's `jobs.jsonl` gets a line before each submission: the name of the job, which is unique, and
the stages of each of its elements. The scheduler is then asked for names, not for ids: ids are used
again after a controller lost its state, and a launcher that dies between submission and note would
never have learned them.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.cluster import slurm
from harness.cluster.slurm import Queued, SlurmDown
from harness.errors import UserError
from harness.files import append_line, make_folder, read_lines
from harness.store.claims import Claim, ClaimLost, try_claim
from harness.store.store import Store

LOCK_SECONDS = 300.0
JOB = re.compile(r"\d+")
GAVE_UP = "gave-up"  # a file beside a submission: why none of its jobs should go on


@dataclass(frozen=True)
class Scheduler:
    """The scheduler's word on one store: `stages` maps to (job, its state); `jobs` are all ids."""

    stages: Mapping[str, tuple[str, Queued]] = field(default_factory=dict)
    jobs: Mapping[str, Queued] = field(default_factory=dict)
    gone: Mapping[str, str] = field(default_factory=dict)  # stage -> last job, no longer there
    asked: bool = False  # False: nothing was ever handed over, or squeue is not installed

    def parts(self) -> dict[str, list[str]]:
        """Stages of every job that is still there."""
        found: dict[str, list[str]] = {}
        for stage, (job, _) in self.stages.items():
            found.setdefault(job, []).append(stage)
        return found


def note(sweep_folder: Path, name: str, parts: Sequence[Sequence[str]], folder: Path) -> None:
    """Before a submission: the job's name, the stages of each element, where its logs will be."""
    line = {"name": name, "parts": [list(part) for part in parts], "folder": str(folder)}
    append_line(sweep_folder / "jobs.jsonl", {**line, "time": time.time()})


def note_id(sweep_folder: Path, name: str, job: str) -> None:
    """After it: the id, which accounting is asked for."""
    append_line(sweep_folder / "jobs.jsonl", {"name": name, "job": job})


def records(store: Path, sweep: str = "*") -> list[dict[str, Any]]:
    """Lines of `jobs.jsonl` of one sweep, or of all, without what `note` cannot have written."""
    paths = sorted(store.glob(f"sweeps/{sweep}/jobs.jsonl"))
    lines = [line for path in paths for line in read_lines(path)]
    return [line for line in lines if isinstance(line.get("name"), str) and _whole(store, line)]


def _whole(store: Path, line: Mapping[str, Any]) -> bool:
    """Whether its folder is among the store's logs, its parts are stages, its job a number."""
    if "parts" not in line:
        return JOB.fullmatch(str(line.get("job"))) is not None
    parts = line["parts"]
    return (
        isinstance(parts, list)
        and all(isinstance(part, list) and all(isinstance(s, str) for s in part) for part in parts)
        and Store(store).own_log(line.get("folder")) is not None
    )


def ask(store: Path, beat: Callable[[], None] | None = None) -> Scheduler:
    """One question to the scheduler, and only where a sweep was ever handed to it.

    With `beat`, called meanwhile, a controller that is down is waited for. Raises UserError when it
    does not answer.
    """
    lines = records(store)
    handed = {line["name"]: line for line in lines if "parts" in line}
    if not handed:
        return Scheduler()
    try:
        jobs = slurm.queue() if beat is None else slurm.patiently(slurm.queue, beat)
    except (SlurmDown, RuntimeError) as error:
        raise UserError(
            f"SLURM does not answer ({error}), so what it has queued is unknown: try again when "
            "its controller is back"
        ) from error
    if jobs is None:
        return Scheduler()
    stages = {}
    named = {word.name for word in jobs.values()} & set(handed)
    # what was given up ends as soon as it begins
    alive = {name for name in named if not (Path(handed[name]["folder"]) / GAVE_UP).exists()}
    for job, word in jobs.items():
        if word.name not in alive:
            continue
        parts = handed[word.name]["parts"]
        element = job.partition("_")[2]
        number = int(element) if element.isdecimal() else 0
        for stage in parts[number] if number < len(parts) else []:
            stages[stage] = job, word
    ids = {line["name"]: str(line["job"]) for line in lines if "job" in line}
    last = {
        stage: name
        for name in ids
        if name in handed
        for part in handed[name]["parts"]
        for stage in part
    }
    gone = {stage: ids[name] for stage, name in last.items() if stage not in stages}
    return Scheduler(stages, jobs, gone, asked=True)


def last_logs(store: Path, stages: Sequence[str]) -> dict[str, tuple[str, Path]]:
    """The job that each stage was last given to, and the log of that job's first task."""
    lines = records(store)
    ids = {line["name"]: str(line["job"]) for line in lines if "job" in line}
    wanted, found = set(stages), {}
    for line in lines:
        if "parts" not in line or line["name"] not in ids:
            continue
        for number, part in enumerate(line["parts"]):
            element = f"_{number}" if len(line["parts"]) > 1 else ""
            job = ids[line["name"]] + element
            for stage in wanted.intersection(part):
                log = Path(line["folder"]) / f"{job}_0_log.out"
                if not log.is_symlink() or Store(store).own_log(log) is not None:
                    found[stage] = job, log
    return found


@contextlib.contextmanager
def submitting(store: Path) -> Iterator[Claim]:
    """Hold the store's one place in front of the scheduler: look, then queue, undisturbed.

    Of two launchers at once the second waits, then sees what the first has queued. Raises UserError
    after five minutes.
    """
    folder = make_folder(store / "sweeps")
    end = time.monotonic() + LOCK_SECONDS
    while (claim := try_claim(folder, "launch")) is None:
        if time.monotonic() > end:
            raise UserError(
                f"another launch has been queueing jobs of {store} for {LOCK_SECONDS:.0f} s "
                f"({folder / 'claim'}): wait for it, or end it"
            )
        time.sleep(0.2)
    try:
        yield claim
    except ClaimLost as lost:
        raise UserError(
            f"this launch was silent for too long and another took its place ({lost}): launch "
            "again for what neither has queued"
        ) from lost
    finally:
        claim.release()
