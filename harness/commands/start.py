"""Start the training of stages, as SLURM jobs or in worker processes on this machine."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.cluster import Sweep, read_again, stage_states
from harness.cluster.job_registry import submission_lock
from harness.commands import launches
from harness.commands.remaining import check_budget, set_aside, stages_to_train
from harness.commands.summary import describe_end, describe_start
from harness.errors import UserError
from harness.files import atomic_write, make_folder, write_json
from harness.states import ENDED, FINISHED, trial_state
from harness.store.claims import process_start, remove_leftovers
from harness.store.store import Store
from harness.sweep import cost
from harness.sweep.jobs import on_gpus
from harness.sweep.plan import configs_of_job, gangs

STOPPED = 130  # exit code of a launch that Ctrl-C stopped
SWEEP_FILES = ("grid.json", "trials.jsonl", "launches.jsonl", "jobs.jsonl")


def queue_jobs(sweep: Sweep, words: list[str], next_round: Callable[..., Any]) -> int:
    """Queue jobs for the selected stages that need training; return the exit code.

    With the rule `settle` these are the stages of the present round, and a job that runs
    `next_round` is queued behind them. `words` are those of the command line that decide what is
    trained. The states are read again under the lock, because another launch of the same store may
    have queued jobs since they were read. Other launches wait until this one releases the lock.
    """
    from harness.cluster import enqueue
    from harness.cluster.slurm_jobs import Full, Refused

    launch, plan, store = sweep.launch, sweep.plan, sweep.store
    with submission_lock(store.root) as lock:
        # the selection stays: retry= has changed the states by which `where` selected
        sweep = replace(read_again(launch, plan, lock.heartbeat), trials=sweep.trials)
        part = sweep.rounds_until_now()
        remaining = stages_to_train(part)
        # again, because another launch may have queued more
        if why := check_budget(sweep, remaining):
            raise UserError(why)
        moved_before = _moved_aside(store, remaining)
        set_aside(store, plan, remaining, sweep.states)
        moved = _moved_aside(store, remaining) - moved_before
        enqueue.record_losses(store, remaining, sweep.scheduler)
        files = _sweep_files(sweep)
        _write_sweep(sweep, words, remaining)
        try:
            submitted = enqueue.submit(
                launch, plan, store, remaining, sweep.states, sweep.scheduler, lock
            )
        except Refused:
            _restore(files)
            raise
        if submitted.refused and not submitted.jobs:
            _restore(files)
        decides, refusal = "", ""
        if sweep.settlement is not None:
            try:
                decides = enqueue.queue_decision(
                    sweep, words, submitted, next_round, lock.heartbeat
                )
            except (Full, Refused) as error:
                refusal = str(error)
    workers = min(launch.cluster.workers, len(submitted.jobs))
    print(describe_start(part.plan, part.states, remaining, workers))
    if submitted.jobs:
        first, last = submitted.jobs[0], submitted.jobs[-1]
        print(f"queued {len(submitted.jobs):,} jobs: {first} to {last}")
        print("they run without this machine; python -m harness.status shows their progress")
    if decides:
        print(f"job {decides} decides the next round when the jobs of this one have ended")
    if submitted.refused:
        print(
            f"SLURM refused jobs for {submitted.refused:,} stages ({submitted.why}): launch again "
            "when some of the queued jobs are done"
        )
    if refusal:
        print(
            f"no job decides the next round ({refusal}): launch again when the jobs of this one "
            "have ended"
        )
    return _report_damage(moved)


def train_here(sweep: Sweep, words: list[str]) -> int:
    """Train in worker processes on this machine, wait for their end, and return the exit code.

    The code is 0 if all selected trials are finished and no file was damaged. With the rule
    `settle` one round is trained. `words` are those of the command line that decide what is
    trained.
    """
    from harness.cluster.local import LocalWorkers
    from harness.cluster.stop_flag import StopFlag
    from harness.cluster.submission import Submission
    from harness.cluster.supervisor import Progress, duration, supervise

    part = sweep.rounds_until_now()
    remaining = stages_to_train(part)
    launch, plan, store, states = part.launch, part.plan, part.store, part.states
    started = time.monotonic()
    _write_sweep(sweep, words, remaining)
    known = configs_of_job(plan.stages, remaining)
    moved_before = _moved_aside(store, known)
    set_aside(store, plan, remaining, states)
    measured = cost.read_measurements(store.root, plan)
    joins = cost.join_rule(plan, launch.run, launch.cluster, measured)
    groups = gangs(plan, remaining, joins)
    workers = min(launch.cluster.workers, len(groups))
    submission = Submission(
        store=store.root,
        sweep=launch.grid.name,
        run=on_gpus(launch.cluster, launch.run),
        cluster=launch.cluster.model_copy(update={"workers": workers}),
        stages=known,
        targets=launch.targets_of(plan, known),
        parts=[groups],
        launcher=(os.getpid(), process_start(os.getpid())),
    )
    print(describe_start(plan, states, remaining, workers), flush=True)
    with StopFlag() as stop:
        local = LocalWorkers(submission, launch.cluster, store.sweep_folder(launch.grid.name))
        to_train = set(remaining)
        untouched = {stage: state for stage, state in states.items() if stage not in to_train}
        progress = Progress(store, plan.stages, list(plan.paths.values()), untouched)
        end, reason = supervise(local, workers, progress, stop)
    states = stage_states(store, plan.stages)
    damage_code = _report_damage(_moved_aside(store, known) - moved_before)
    print(describe_end(plan, states, duration(time.monotonic() - started), local.folder))
    if end == "stopped":
        print("stopped; the same command continues from here")
        return STOPPED
    untrained = [stage for stage in remaining if states[stage].name not in ENDED]
    if end == "finished" and untrained:
        raise UserError(
            f"all workers ended and {len(untrained):,} stages are not trained: their logs in "
            f"{local.folder} may say why. The same command continues from here"
        )
    if end != "finished":
        raise UserError(
            f"the sweep ended early ({end}): {reason.rstrip('.')}. "
            "The same command continues from here"
        )
    # of the selected trials, and not of all stages: a trunk stage is not needed once what would
    # continue it is finished
    ends = [trial_state(trial["stages"], states).name for trial in part.trials]
    return damage_code if all(name in FINISHED for name in ends) else 1


def _write_sweep(sweep: Sweep, words: list[str], stages: Sequence[str]) -> None:
    """Write to `sweeps/<name>/` the composed grid, every trial with its stages, and the launch."""
    folder = make_folder(sweep.store.sweep_folder(sweep.launch.grid.name))
    remove_leftovers(folder)
    write_json(folder / "grid.json", sweep.launch.resolved)
    lines = [
        json.dumps({"trial": trial.id, **trial.cell, "stages": sweep.plan.paths[trial.id]}) + "\n"
        for trial in sweep.plan.trials
    ]
    atomic_write(folder / "trials.jsonl", "".join(lines).encode())
    launches.record(sweep, words, stages)


def _sweep_files(sweep: Sweep) -> dict[Path, bytes | None]:
    """Return the files that a launch writes to the sweep's folder; None for those not there."""
    folder = sweep.store.sweep_folder(sweep.launch.grid.name)
    paths = [folder / name for name in SWEEP_FILES]
    return {path: path.read_bytes() if path.is_file() else None for path in paths}


def _restore(files: Mapping[Path, bytes | None]) -> None:
    """Restore what `_sweep_files` returned, after a launch of which nothing was queued."""
    for path, content in files.items():
        if content is None:
            path.unlink(missing_ok=True)
        elif path.name != "jobs.jsonl":  # to which running jobs append
            atomic_write(path, content)
    folder = next(iter(files)).parent
    for empty in (folder / "logs", folder):
        with contextlib.suppress(OSError):
            empty.rmdir()


def _moved_aside(store: Store, stages: Iterable[str]) -> set[Path]:
    """Return the damaged files of these stages that were moved aside until now."""
    return store.damaged_files(store.ids().intersection(stages))


def _report_damage(files: set[Path]) -> int:
    """Print how many damaged files this launch moved aside; return 1 if there were any, else 0."""
    if files:
        print(
            f"{len(files):,} damaged file(s) were moved aside, and their stages are trained again: "
            "check the store's disk. This launch exits with 1; later ones will not"
        )
    return 1 if files else 0
