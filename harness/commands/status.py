"""python -m harness.status grid=NAME [by=AXES] [where=CONDITION] [trials=true] [watch=true] ...

Print the state of every trial: from its result file, else its heartbeat, else the scheduler.

    python -m harness.status grid=quickstart
    python -m harness.status grid=quickstart by=width,sparsity where="state == 'failed'"
    python -m harness.status grid=quickstart trials=true where="state == 'running'"
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
from harness.cluster import (
    Sweep,
    decision,
    names_of_trials,
    read_again,
    read_sweep,
    slurm,
    value_of,
)
from harness.cluster.job_registry import read_records
from harness.cluster.state import TRIED_BEFORE
from harness.commands import launches, progress, settled
from harness.errors import UserError, control, nearest
from harness.states import ENDED, FINISHED, STATES, UNDER_WAY
from harness.sweep import cost
from harness.text_table import format_table

OPTIONS = {
    "by": Option(list, example="width,sparsity"),
    "format": Option(default="screen", choices=("screen", "json")),
    "trials": Option(bool, default=False),
    "watch": Option(bool, default=False),
}
MOST_REASONS = 10  # printed; the others are counted
WATCH_SECONDS = 5.0
ADVICE = {
    "failed": "failed stages are tried again by launch with retry=failed",
    "damaged": "damaged stages are moved aside and done again by launch",
    "disputed": "disputed: heartbeat and scheduler contradict each other; look again in a minute",
}


def main(args: list[str]) -> int:
    """Print the sweep's state; return the exit code, 1 if a selected stage is damaged."""
    sweep = read_sweep(args, OPTIONS)
    options = sweep.launch.options
    columns, words = _columns(sweep), launches.words_of(args, options)
    if options["format"] == "json":
        print(json.dumps(as_dict(sweep), indent=1))
    elif options["watch"]:
        sweep = _watch(sweep, columns, words)
    else:
        print(screen(sweep, columns, words))
    return 1 if any(sweep.states[stage].name == "damaged" for stage in sweep.stages()) else 0


def as_dict(sweep: Sweep) -> dict[str, object]:
    """Return what `format=json` prints."""
    content: dict[str, object] = {
        "grid": sweep.launch.grid.name,
        "trials": list(sweep.trials),
        "running": progress.running_stages(sweep),
        "jobs": _jobs(sweep),
        "jobs_outside": launches.jobs_outside(sweep),
    }
    if sweep.settlement is not None:
        content["settle"] = settled.as_dict(sweep.settlement)
        content["decisions"] = sorted(decision.queued(sweep))
    return content


def _watch(sweep: Sweep, columns: Sequence[str], words: Sequence[str]) -> Sweep:
    """Print the state again and again until nothing is under way or Ctrl-C; return the last one."""
    try:
        while True:
            if sys.stdout.isatty():
                control("\x1b[H\x1b[2J")
            print(screen(sweep, columns, words), flush=True)
            is_over = all(t["state"] not in UNDER_WAY for t in sweep.trials)
            if is_over and not sweep.scheduler.problem and not decision.queued(sweep):
                return sweep
            time.sleep(WATCH_SECONDS)
            sweep = read_again(sweep.launch, sweep.plan)
    except KeyboardInterrupt:
        print()
        return sweep


def _columns(sweep: Sweep) -> Sequence[str]:
    """Return the names that the table has columns for: `by`, or the first axes but for the seed."""
    grid, by = sweep.launch.grid, sweep.launch.options["by"]
    if by is None:
        return [axis for axis in grid.axes if axis != "seed"][:2]
    valid = names_of_trials(grid) - {"state"}  # which has columns of its own
    if "state" in by:
        raise UserError("by=state: each state has a column of its own already, so leave it out")
    for name in by:
        if name not in valid:
            raise UserError(f"by={','.join(by)}: there is no axis '{name}'{nearest(name, valid)}")
    return by


def screen(sweep: Sweep, columns: Sequence[str], words: Sequence[str] = ()) -> str:
    """Return the table by `columns` and state, the cost, the jobs, reasons and advice.

    `words` are those of the command line, which a sweep may not have been launched with.
    """
    needed, store = sweep.not_ruled_out().states, sweep.store.root
    states = sweep.states
    remaining = [stage for stage, state in needed.items() if state.name not in ENDED]
    done = sum(state.name in FINISHED for state in states.values())
    spent = sum(state.result["timing"]["gpu_seconds"] for state in states.values() if state.result)
    lines = [
        f"grid {sweep.launch.grid.name}: {len(sweep.trials):,} trials",
        *format_table(_table(sweep, columns)),
        *(progress.describe_trials(sweep) if sweep.launch.options.get("trials") else ()),
        f"stages: {done:,} of {len(states):,} done; {spent / 3600:.2f} device-hours",
        *progress.describe_running(sweep),
    ]
    if remaining:
        workers = sweep.launch.cluster.workers
        cost_line = cost.describe_remaining_cost(sweep.plan, states, remaining, workers, store)
        lines.append(cost_line if sweep.settlement is None else f"at most: {cost_line}")
    if sweep.settlement is not None:
        lines += [settled.describe_cost(sweep), *settled.describe_sizes(sweep)]
    lines += cost.describe_sizes(sweep.plan, states, remaining, store)
    if sweep.scheduler.was_queried:
        counts = Counter(job["state"] for job in _jobs(sweep))
        counted = ", ".join(f"{count:,} {state}" for state, count in sorted(counts.items()))
        lines.append(f"jobs: {counted or 'none'}{_elapsed(sweep)}")
        decides = [f"{job} ({entry.state})" for job, entry in decision.queued(sweep).items()]
        lines += [f"  job {job} decides the next round" for job in decides]
        lines += [f"  {sentence}" for sentence in slurm.describe_waiting(_entries(sweep))]
    lines += decision.describe(sweep)
    lines += [*launches.describe_last_words(sweep, words), *launches.describe_outside(sweep)]
    return "\n".join([*lines, *_reasons(sweep)])


def _table(sweep: Sweep, columns: Sequence[str]) -> list[list[str]]:
    """Return the rows of the table: trials by the values of `columns`, counted by state."""
    counts: dict[tuple[str, ...], Counter[str]] = {}
    trials = {trial.id: trial for trial in sweep.plan.trials}
    for row in sweep.trials:
        key = tuple(str(value_of(trials[row["trial"]], column)) for column in columns)
        counts.setdefault(key, Counter())[row["state"]] += 1
    total = Counter(trial["state"] for trial in sweep.trials)
    last = ("all", *[""] * (len(columns) - 1)) if columns else ()
    present = [name for name in STATES if total[name]]
    table = [[*columns, *present, "trials"]]
    for key, by_state in [*counts.items(), (last, total)]:
        cells = [f"{by_state[name]:,}" if by_state[name] else "-" for name in present]
        table.append([*key, *cells, str(by_state.total())])
    return table


def _jobs(sweep: Sweep) -> list[dict[str, str]]:
    """Return the scheduler's jobs that train or decide for this sweep."""
    return [
        {"job": job, "state": entry.state, "reason": entry.reason, "start": entry.start}
        for job, entry in _entries(sweep).items()
    ]


def _entries(sweep: Sweep) -> dict[str, slurm.QueuedJob]:
    """Return the entries in SLURM's queue of the jobs that train or decide for this sweep."""
    queued = {**sweep.scheduler.stages, **sweep.scheduler.stuck}
    jobs = {job: entry for stage, (job, entry) in queued.items() if stage in sweep.plan.stages}
    return {**jobs, **decision.queued(sweep)}


def _elapsed(sweep: Sweep) -> str:
    """Return the hours that this sweep's jobs ran, requeued ones included; `-` if not known."""
    folder = sweep.store.sweep_folder(sweep.launch.grid.name)
    jobs = [str(r["job"]) for r in read_records(sweep.store.root, folder.name) if "job" in r]
    seconds = slurm.elapsed_seconds(jobs)
    return "; elapsed -" if seconds is None else f"; elapsed {sum(seconds.values()) / 3600:.2f} h"


def _reasons(sweep: Sweep) -> list[str]:
    """Return why stages failed, are damaged or disputed, each reason with its count, and advice."""
    selected = sweep.stages()
    states = [
        sweep.states[stage]
        for stage in selected
        if sweep.states[stage].name in ADVICE or sweep.states[stage].why.startswith(TRIED_BEFORE)
    ]
    reasons = Counter(f"{state.name}: {state.why}" for state in states if state.why)
    lines = [f"  {count} x {reason}" for reason, count in reasons.most_common(MOST_REASONS)]
    if len(reasons) > MOST_REASONS:
        lines.append(f"  and {len(reasons) - MOST_REASONS} more reasons")
    names = {state.name for state in states}
    advice = [sentence for name, sentence in ADVICE.items() if name in names]
    return [*lines, *_failure_counts(sweep, selected), *advice]


def _failure_counts(sweep: Sweep, stages: Sequence[str]) -> list[str]:
    """Return a line with the number of failures of each class, survived ones included."""
    counts: Counter[str] = Counter()
    for stage in sweep.store.ids() & set(stages):
        counts.update(str(failure.get("class")) for failure in sweep.store.failures(stage))
    counts.pop("retry", None)
    if not counts:
        return []
    return ["so far: " + ", ".join(f"{count:,} {name}" for name, count in counts.most_common())]
