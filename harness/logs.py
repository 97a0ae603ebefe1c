"""What the jobs of a sweep said: the log of each selected stage's last attempt.

python -m harness.logs grid=quickstart where="state == 'failed'"
python -m harness.logs grid=quickstart follow=true lines=50
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from pathlib import Path

from harness.arguments import Option
from harness.cluster.queued import last_logs
from harness.cluster.select import Sweep, again, look_at
from harness.errors import command, printable
from harness.files import read_lines
from harness.store.claims import look

OPTIONS = {"follow": Option(bool, default=False), "lines": Option(int, default=20, low=0)}
POLL_SECONDS = 1.0


def main(args: list[str]) -> int:
    """The command; returns its exit code."""
    sweep = look_at(args, OPTIONS)
    options = sweep.launch.options
    logs = _logs(sweep)
    if not logs and not options["follow"]:
        print("no selected stage was begun: nothing was said yet")
        return 0
    places = {path: _tail(path, options["lines"], stages) for path, stages in logs.items()}
    if options["follow"]:
        _follow(sweep, places)
    return 0


def _logs(sweep: Sweep) -> dict[Path, list[str]]:
    """Log files by the stages whose last attempt they belong to, the newest last.

    Of a stage that none of its jobs began, the last job's: it may tell why.
    """
    handed = last_logs(sweep.store.root, sweep.stages())
    found: dict[Path, tuple[float, list[str]]] = {}
    for stage in sweep.stages():
        attempts = read_lines(sweep.store.folder(stage) / "attempts.jsonl")
        last = attempts[-1] if attempts else {}
        own = sweep.store.own_log(last.get("log"))
        if own is not None:
            when, stages = found.get(own, (0.0, []))
            found[own] = max(when, _seconds(last.get("time"))), [*stages, stage]
        elif not attempts and stage in handed and handed[stage][1].exists():
            log = handed[stage][1]
            when, stages = found.get(log, (0.0, []))
            found[log] = max(when, log.stat().st_mtime), [*stages, stage]
    return {path: stages for path, (_, stages) in sorted(found.items(), key=lambda i: i[1][0])}


def _seconds(said: object) -> float:
    return float(said) if isinstance(said, int | float) else 0.0


def _tail(path: Path, lines: int, stages: Iterable[str]) -> int:
    """Print a log's end; the place from which it may be followed."""
    print(f"==> {path} ({', '.join(stages)}) <==")
    try:
        data = path.read_bytes()
    except OSError as error:
        print(f"cannot be read: {error.strerror}")
        return 0
    shown = data.decode(errors="replace").splitlines()[-lines:] if lines else []
    print(printable("\n".join(shown)), flush=True)
    return len(data)


def _follow(sweep: Sweep, places: dict[Path, int]) -> None:
    """Print what is added, until no selected trial is open any more or Ctrl-C."""
    last = None
    try:
        while True:
            ended = not _is_open(sweep)  # first, so that what was said until then is read
            for path in list(places):
                data = _rest(path, places[path])
                if data:
                    if path != last:
                        print(f"==> {path} <==")
                    sys.stdout.write(printable(data.decode(errors="replace")))
                    sys.stdout.flush()
                    last = path
                    places[path] += len(data)
            if ended:
                return
            time.sleep(POLL_SECONDS)
            sweep = again(sweep.launch, sweep.plan)
            for path in _logs(sweep):
                places.setdefault(path, 0)
    except KeyboardInterrupt:
        print()


def _is_open(sweep: Sweep) -> bool:
    """Whether a selected trial goes on, or the worker of one still holds what it has finished."""
    if any(trial["state"] in ("running", "queued") for trial in sweep.trials):
        return True
    claims = [look(sweep.store.folder(stage)) for stage in sweep.stages()]
    return any(claim is not None and claim.live for claim in claims)


def _rest(path: Path, start: int) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(start)
            return file.read()
    except OSError:
        return b""


if __name__ == "__main__":
    command(main, __doc__)
