"""The truth about every trial of a sweep: result file first, then heartbeat, then the scheduler.

python -m harness.status grid=quickstart
python -m harness.status grid=quickstart by=width,sparsity where="state == 'failed'"
python -m harness.status grid=quickstart watch=true
python -m harness.status grid=quickstart format=json
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Sequence

from harness.arguments import Option
from harness.cluster import slurm
from harness.cluster.queued import records
from harness.cluster.select import Sweep, again, look_at
from harness.cluster.state import AFTER
from harness.errors import UserError, command, nearest, printable
from harness.sweep import cost
from harness.sweep.states import STATES
from harness.verb import callable_module

OPTIONS = {
    "by": Option(list, example="width,sparsity"),
    "format": Option(default="screen", choices=("screen", "json")),
    "watch": Option(bool, default=False),
}
REASONS = 10  # shown; the rest is counted
WATCH_SECONDS = 5.0
ADVICE = {
    "failed": "failed stages are tried again by launch with retry=failed",
    "damaged": "damaged stages are moved aside and done again by launch",
    "disputed": "disputed: heartbeat and scheduler contradict each other; look again in a minute",
}


def main(args: list[str]) -> int:
    """The command; returns its exit code."""
    sweep = look_at(args, OPTIONS)
    options = sweep.launch.options
    columns = _columns(sweep.launch.grid.axes, options["by"])
    if options["format"] == "json":
        print(json.dumps(as_dict(sweep), indent=1))
    elif options["watch"]:
        sweep = _watch(sweep, columns)
    else:
        print(printable(screen(sweep, columns)))
    return 1 if any(sweep.states[stage].name == "damaged" for stage in sweep.stages()) else 0


def as_dict(sweep: Sweep) -> dict[str, object]:
    """What `format=json` prints."""
    return {"grid": sweep.launch.grid.name, "trials": list(sweep.trials), "jobs": _jobs(sweep)}


def _watch(sweep: Sweep, columns: Sequence[str]) -> Sweep:
    """The table again and again, until nothing moves any more or Ctrl-C; the last look."""
    try:
        while True:
            clear = "\x1b[H\x1b[2J" if sys.stdout.isatty() else ""
            print(f"{clear}{printable(screen(sweep, columns))}", flush=True)
            if all(t["state"] not in ("running", "queued", "disputed") for t in sweep.trials):
                return sweep
            time.sleep(WATCH_SECONDS)
            sweep = again(sweep.launch, sweep.plan)
    except KeyboardInterrupt:
        print()
        return sweep


def _columns(axes: Sequence[str], by: list[str] | None) -> list[str]:
    if by is None:
        return [axis for axis in axes if axis != "seed"][:2]
    for name in by:
        if name not in axes:
            raise UserError(f"by={name}: the grid has no axis '{name}'{nearest(name, axes)}")
    return by


def screen(sweep: Sweep, columns: Sequence[str]) -> str:
    """The table by `columns` and state, what was spent and is to be spent, reasons, advice."""
    trials, states = sweep.trials, sweep.states
    present = [name for name in STATES if any(trial["state"] == name for trial in trials)]
    groups: dict[tuple[str, ...], Counter[str]] = {}
    for trial in trials:
        key = tuple(str(trial[column]) for column in columns)
        groups.setdefault(key, Counter())[trial["state"]] += 1
    table = [[*columns, *present, "trials"]]
    for key, counts in groups.items():
        table.append([*key, *(_number(counts[n]) for n in present), str(sum(counts.values()))])
    total = Counter(trial["state"] for trial in trials)
    foot = ["all", *[""] * (len(columns) - 1)] if columns else []
    table.append([*foot, *(_number(total[name]) for name in present), str(len(trials))])
    done = sum(state.name in ("done", "diverged") for state in states.values())
    spent = sum(state.result["timing"]["gpu_seconds"] for state in states.values() if state.result)
    open_states = ("waiting", "running", "queued", "disputed", "damaged")
    left = [stage for stage, state in states.items() if state.name in open_states]
    lines = [f"grid {sweep.launch.grid.name}: {len(trials):,} trials", *_aligned(table)]
    stages = len(sweep.plan.stages)
    lines.append(f"stages: {done:,} of {stages:,} done; {spent / 3600:.2f} device-hours")
    if left:
        workers = sweep.launch.cluster.workers
        lines.append(
            cost.describe_remaining_cost(sweep.plan, states, left, workers, sweep.store.root)
        )
    lines += cost.describe_sizes(sweep.plan, states, left, sweep.store.root)
    if sweep.scheduler.asked:
        found = Counter(str(job["state"]) for job in _jobs(sweep))
        counted = ", ".join(f"{count:,} {state}" for state, count in sorted(found.items()))
        lines.append(f"jobs: {counted or 'none'}{_elapsed(sweep)}")
    return "\n".join([*lines, *_reasons(sweep)])


def _jobs(sweep: Sweep) -> list[dict[str, str]]:
    """The scheduler's jobs that have a stage of this sweep."""
    found = {}
    for stage, (job, word) in sweep.scheduler.stages.items():
        if stage in sweep.plan.stages:
            found[job] = {"job": job, "state": word.state, "reason": word.reason}
    return list(found.values())


def _elapsed(sweep: Sweep) -> str:
    """Hours that this sweep's jobs ran, requeued ones included; a dash without accounting."""
    folder = sweep.store.sweep_folder(sweep.launch.grid.name)
    known = [str(r["job"]) for r in records(sweep.store.root, folder.name) if "job" in r]
    seconds = slurm.elapsed(known)
    return "; elapsed -" if seconds is None else f"; elapsed {sum(seconds.values()) / 3600:.2f} h"


def _reasons(sweep: Sweep) -> list[str]:
    """Why stages failed, are damaged or disputed: each reason once with its count, then advice."""
    wanted = set(sweep.stages())
    shown = [
        s
        for stage, s in sweep.states.items()
        if stage in wanted and (s.name in ADVICE or s.why.startswith(AFTER))
    ]
    why = Counter(f"{state.name}: {state.why}" for state in shown if state.why)
    lines = [f"  {count} x {reason}" for reason, count in why.most_common(REASONS)]
    more = [f"  and {len(why) - REASONS} more reasons"] if len(why) > REASONS else []
    counted = _failure_counts(sweep, wanted)
    return [*lines, *more, *counted, *(ADVICE[n] for n in ADVICE if n in {s.name for s in shown})]


def _failure_counts(sweep: Sweep, wanted: set[str]) -> list[str]:
    """How often each class of failure occurred; those that were survived are counted, too."""
    counts: Counter[str] = Counter()
    for stage in sweep.store.ids() & wanted:
        counts.update(str(f.get("class")) for f in sweep.store.failures(stage))
    counts.pop("retry", None)
    if not counts:
        return []
    return ["so far: " + ", ".join(f"{count:,} {name}" for name, count in counts.most_common())]


def _number(count: int) -> str:
    return f"{count:,}" if count else "-"


def _aligned(table: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    return [
        "  " + "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        for row in table
    ]


callable_module(__name__)

if __name__ == "__main__":
    command(main, __doc__)
