"""python -m harness.launch grid=NAME [key=value ...]

Train a grid, or resume it: the same command. `--help` prints every option (commands/usage.py).

    python -m harness.launch grid=quickstart dry_run=true
    python -m harness.launch grid=quickstart cluster.workers=2
    python -m harness.launch grid=quickstart retry=failed where="width < 1"
"""

from __future__ import annotations

import json

from harness.arguments import Option
from harness.cluster import Sweep, read_sweep
from harness.commands import launches, preflight, summary
from harness.commands import usage as help_text
from harness.commands.remaining import RETRY, after_retry, reset_for_retry, stages_to_train
from harness.commands.start import queue_jobs, train_here
from harness.config import grid_files
from harness.errors import UserError
from harness.files import atomic_write, make_folder
from harness.store.claims import remove_leftovers

OPTIONS = {
    "dry_run": Option(bool, default=False),
    "retry": Option(choices=RETRY),
    "budget": Option(float, low=0, high=1e9, quantity="a number of device-hours", example="12.5"),
}


def usage() -> str:
    """Return the help text, with the shipped grids."""
    return help_text.usage(grid_files())


def main(args: list[str]) -> int:
    """Train what the store lacks of a grid, or print what would be trained; return the exit code.

    The code is 1 if a file is damaged or a selected stage has failed.
    """
    sweep = read_sweep(args, OPTIONS, trains=True, must_answer=True)
    launch, plan, dry_run = sweep.launch, sweep.plan, sweep.launch.options["dry_run"]
    if launch.options["retry"] is not None:
        sweep = after_retry(sweep) if dry_run else reset_for_retry(sweep)
    remaining = stages_to_train(sweep)
    preflight.check_budget(launch, plan, sweep.store, sweep.states, remaining)
    for sentence in launches.describe_outside(sweep):
        print(f"note: {sentence}")
    if dry_run:
        print(summary.describe_dry_run(sweep, remaining))
        return 1 if any(state.name == "damaged" for state in sweep.states.values()) else 0
    if sweep.scheduler.was_queried:
        from harness.cluster import enqueue  # imports submitit, which a dry run does not need

        enqueue.release_held(sweep.scheduler)
    if not remaining:
        print(summary.describe_nothing_left(sweep))
        return 1 if any(sweep.states[stage].name == "failed" for stage in sweep.stages()) else 0
    if problem := preflight.missing_packages(launch):
        raise UserError(problem)
    for sentence in [*preflight.unchecked(launch), *preflight.check_layers(plan, remaining)]:
        print(f"note: {sentence}")
    preflight.provide_data(launch)
    _write_sweep(sweep)
    launches.record(sweep, launches.words_of(args, launch.options), remaining)
    for line in summary.describe_gangs(launch, plan, remaining):
        print(line)
    if launch.cluster.executor == "slurm":
        return queue_jobs(sweep)
    return train_here(sweep, remaining)


def _write_sweep(sweep: Sweep) -> None:
    """Write `sweeps/<name>/`: the composed grid, and every trial with its path of stages."""
    folder = make_folder(sweep.store.sweep_folder(sweep.launch.grid.name))
    remove_leftovers(folder)
    resolved = json.dumps(sweep.launch.resolved, indent=1)
    atomic_write(folder / "grid.json", f"{resolved}\n".encode())
    lines = [
        json.dumps({"trial": trial.id, **trial.cell, "stages": sweep.plan.paths[trial.id]}) + "\n"
        for trial in sweep.plan.trials
    ]
    atomic_write(folder / "trials.jsonl", "".join(lines).encode())
