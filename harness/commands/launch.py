"""python -m harness.launch grid=NAME [key=value ...]

Train a grid, or resume it: the same command. `--help` prints every option (commands/usage.py).

    python -m harness.launch grid=quickstart dry_run=true
    python -m harness.launch grid=quickstart cluster.workers=2
    python -m harness.launch grid=quickstart retry=failed where="width < 1"
"""

from __future__ import annotations

import json

from harness.arguments import Option
from harness.cluster import query_scheduler, select_trials, stage_states
from harness.commands import preflight, summary
from harness.commands import usage as help_text
from harness.commands.remaining import (
    RETRY,
    reset_for_retry,
    stages_to_train,
    states_after_retry,
)
from harness.commands.start import queue_jobs, train_here
from harness.config import Launch, grid_files, load
from harness.files import atomic_write, make_folder
from harness.store.claims import remove_leftovers
from harness.store.store import Store
from harness.sweep.plan import Plan, make_plan

OPTIONS = {
    "dry_run": Option(bool, default=False),
    "retry": Option(choices=RETRY),
    "budget": Option(float, low=0, high=1e9, quantity="a number of device-hours", example="12.5"),
    "where": Option(),
}


def usage() -> str:
    """Return the help text, with the shipped grids."""
    return help_text.usage(grid_files())


def main(args: list[str]) -> int:
    """Train what the store lacks of a grid, or print what would be trained; return the exit code.

    The code is 1 if a file is damaged or a selected stage has failed.
    """
    launch = load(args, OPTIONS, trains=True)
    dry_run, retry = launch.options["dry_run"], launch.options["retry"]
    plan = make_plan(launch.grid)
    store = Store(launch.store)
    scheduler = query_scheduler(store.root, None if dry_run else _keep_nothing_alive)
    states = stage_states(store, plan.stages, scheduler)
    selected = {stage for trial in select_trials(plan, states, launch) for stage in trial["stages"]}
    if retry is not None and dry_run:
        states = states_after_retry(states, retry, selected)
    elif retry is not None:
        states = reset_for_retry(plan, store, states, scheduler, retry, selected)
    remaining = stages_to_train(launch, plan, store, states, selected)
    preflight.check_budget(launch, plan, store, states, remaining)
    notes = preflight.check_layers(launch, plan, remaining)
    if dry_run:
        notes += preflight.dry_run_notes(launch)
        print(summary.describe_dry_run(launch, plan, states, remaining, notes))
        return 1 if any(state.name == "damaged" for state in states.values()) else 0
    if scheduler.was_queried:
        from harness.cluster import enqueue  # imports submitit, which a dry run does not need

        enqueue.release_held(scheduler)
    if not remaining:
        print(summary.describe_nothing_left(plan, states))
        return 1 if any(states[stage].name == "failed" for stage in selected) else 0
    preflight.check_machine(launch)
    for sentence in [*notes, *preflight.unchecked(launch)]:
        print(f"note: {sentence}")
    _write_sweep(launch, plan, store)
    for line in summary.describe_gangs(launch, plan, remaining):
        print(line)
    if launch.cluster.executor == "slurm":
        return queue_jobs(launch, plan, store, selected)
    return train_here(launch, plan, store, remaining, states)


def _keep_nothing_alive() -> None:
    """Do nothing as heartbeat during a query of SLURM: this launch does not have a claim yet."""


def _write_sweep(launch: Launch, plan: Plan, store: Store) -> None:
    """Write `sweeps/<name>/`: the composed grid, and every trial with its path of stages."""
    folder = make_folder(store.sweep_folder(launch.grid.name))
    remove_leftovers(folder)
    atomic_write(folder / "grid.json", (json.dumps(launch.resolved, indent=1) + "\n").encode())
    lines = [
        json.dumps({"trial": trial.id, **trial.cell, "stages": plan.paths[trial.id]}) + "\n"
        for trial in plan.trials
    ]
    atomic_write(folder / "trials.jsonl", "".join(lines).encode())
