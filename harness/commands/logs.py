"""python -m harness.logs grid=NAME [where=CONDITION] [lines=20] [follow=true]

Print the end of the logs of a sweep's jobs: of each selected stage, the log of its last attempt.

    python -m harness.logs grid=quickstart where="state == 'failed'"
    python -m harness.logs grid=quickstart follow=true lines=50

A job trains many stages. With `where=`, only the parts of its log are printed that are about the
selected trials, and of failed trials only the stage that failed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

from harness.arguments import Option
from harness.cluster import Sweep, decision, read_again, read_sweep
from harness.cluster.job_registry import last_logs
from harness.commands import launches
from harness.states import UNDER_WAY
from harness.store.claims import look

OPTIONS = {"follow": Option(bool, default=False), "lines": Option(int, default=20, low=0)}
POLL_SECONDS = 1.0
MOST_BYTES = 2**26  # of a log that are read from its end
BEGIN = "begin "  # how a worker's line about the start of a stage begins


def main(args: list[str]) -> int:
    """Print the logs of the selected stages; return the exit code."""
    sweep = read_sweep(args, OPTIONS)
    options = sweep.launch.options
    logs = _logs(sweep)
    if not logs and not options["follow"]:
        print("there are no logs yet: none of the selected stages has begun, or logs were deleted")
        for sentence in launches.describe_outside(sweep):
            print(sentence)
        return 0
    printed = {
        path: _print_log(path, stages, options["lines"], options["where"] is None)
        for path, stages in logs.items()
    }
    if options["follow"]:
        _follow(sweep, printed)
    return 0


def _stages_to_show(sweep: Sweep) -> list[str]:
    """Return the selected stages; of trials that have all failed, only those that failed."""
    if any(trial["state"] != "failed" for trial in sweep.trials):
        return sweep.stages()
    return [stage for stage in sweep.stages() if sweep.states[stage].name == "failed"]


def _logs(sweep: Sweep) -> dict[Path, list[str]]:
    """Return the log files, newest last, each with the stages whose last attempt wrote to it.

    For a stage that no job has begun it is the log of the job that has it, which may say why.
    """
    stages = _stages_to_show(sweep)
    job_logs = last_logs(sweep.store.root, stages)
    stages_of: dict[Path, list[str]] = {}
    for stage in stages:
        attempt = sweep.store.last_attempt(stage)
        if attempt:
            path = sweep.store.own_log(attempt.get("log"))
        else:
            path = job_logs[stage][1] if stage in job_logs else None
        if path is not None and path.is_file():
            stages_of.setdefault(path, []).append(stage)
    log = decision.last_log(sweep) if sweep.launch.options.get("where") is None else None
    if log is not None:
        stages_of[log] = ["decision of the next round"]
    return {path: stages_of[path] for path in sorted(stages_of, key=lambda p: p.stat().st_mtime)}


def _print_log(path: Path, stages: Sequence[str], count: int, is_whole: bool) -> int:
    """Print the last `count` lines of a log, or of its parts about `stages`.

    Returns the position in the log from where it can be followed.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - MOST_BYTES))
            data = file.read(MOST_BYTES)
            end = file.tell()  # the log may have grown since its size was read
    except OSError as error:
        print(f"==> {path} ({', '.join(stages)}) <==\ncannot be read: {error.strerror}")
        return 0
    lines = data.decode(errors="replace").splitlines()
    for names, part in [(stages, lines)] if is_whole else _parts(lines, stages):
        print(f"==> {path} ({', '.join(names)}) <==")
        print("\n".join(part[-count:] if count else []), flush=True)
    return end


def _parts(lines: Sequence[str], stages: Sequence[str]) -> list[tuple[list[str], list[str]]]:
    """Return the parts of a job's log that are about `stages`, in order, with these stages.

    A part has the last attempt of a gang: from the lines `begin STAGE` of its stages to those of
    the next gang. The stages that no line names have one part, the whole log.
    """
    parts: list[list[str]] = [[]]
    part_of: dict[str, int] = {}
    for line in lines:
        if line.startswith(BEGIN):
            if not parts[-1] or not parts[-1][-1].startswith(BEGIN):
                parts.append([])
            part_of[line.removeprefix(BEGIN)] = len(parts) - 1
        parts[-1].append(line)
    members: dict[int, list[str]] = {}
    for stage in stages:
        members.setdefault(part_of.get(stage, -1), []).append(stage)
    return [
        (names, parts[number] if number >= 0 else list(lines))
        for number, names in sorted(members.items())
    ]


def _follow(sweep: Sweep, printed: dict[Path, int]) -> None:
    """Print what is added to the logs until no selected trial is open, or until Ctrl-C.

    `printed` has the number of bytes of each log that are printed already.
    """
    last = None
    try:
        while True:
            ended = not _is_open(sweep)  # before the logs are read, so that no last line is missed
            for path in list(printed):
                while data := _read_from(path, printed[path]):
                    if path != last:
                        print(f"==> {path} <==")
                    print(data.decode(errors="replace"), end="", flush=True)
                    last = path
                    printed[path] += len(data)
            if ended:
                return
            time.sleep(POLL_SECONDS)
            sweep = read_again(sweep.launch, sweep.plan)
            for path in _logs(sweep):
                printed.setdefault(path, 0)
    except KeyboardInterrupt:
        print()


def _is_open(sweep: Sweep) -> bool:
    """Return whether a selected trial runs or waits, or a worker still holds one of its stages."""
    if decision.queued(sweep) or any(trial["state"] in UNDER_WAY for trial in sweep.trials):
        return True
    claims = [look(sweep.store.folder(stage)) for stage in sweep.stages()]
    return any(claim is not None and claim.live for claim in claims)


def _read_from(path: Path, start: int) -> bytes:
    """Return the next part of a log, at most `MOST_BYTES` long; empty at its end."""
    try:
        with path.open("rb") as file:
            file.seek(start)
            return file.read(MOST_BYTES)
    except OSError:
        return b""
