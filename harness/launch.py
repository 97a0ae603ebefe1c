"""Run a sweep, or what is left of it: the same command.

python -m harness.launch grid=quickstart dry_run=true
python -m harness.launch grid=quickstart cluster.workers=2
python -m harness.launch grid=quickstart retry=failed
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from harness.cluster import failure, slurm
from harness.cluster.slurm import Queued
from harness.cluster.state import StageState, stage_states
from harness.config import Launch, grid_files, load
from harness.errors import UserError, command
from harness.store.claims import process_start
from harness.store.files import atomic_write, make_folder
from harness.store.store import Store
from harness.sweep import describe
from harness.sweep.plan import Plan, gangs, make_plan, todo, trees

if TYPE_CHECKING:
    from harness.cluster.worker import Submission

KNOBS = {"dry_run": bool, "retry": str}


def main(args: list[str]) -> int:
    """The command; returns its exit code."""
    if not args or args[0] in ("--help", "-h", "help"):
        print(describe.usage(grid_files()))
        return 0
    launch = load(args, KNOBS)
    retry = launch.knobs.get("retry")
    if retry not in (None, "failed"):
        raise UserError(f"retry={retry} is not known: say retry=failed")
    plan = make_plan(launch.grid)
    store = Store(launch.store)
    queued = slurm.still_queued(store.root)
    states = stage_states(store, plan.stages, queued)
    if retry == "failed" and not launch.knobs.get("dry_run"):
        states = _forgive(plan, store, states, queued)
    left = todo(plan, {stage: state.name for stage, state in states.items()}, store.has_weights)
    if launch.knobs.get("dry_run"):
        print(describe.dry_run(launch, plan, states, left))
        return 0
    for stage in left:
        if states[stage].name == "damaged":
            store.set_aside(stage, states[stage].why)
        elif states[stage].name == "done":
            store.set_aside(stage, f"the weights of {stage} were not kept and a child needs them")
    if not left:
        print(describe.nothing_left(plan, states))
        return 1 if any(state.name == "failed" for state in states.values()) else 0
    _require_data(launch)
    _write_sweep(launch, plan, store)
    if launch.cluster.executor == "slurm":
        return _queue(launch, plan, store, left, states)
    return _run_here(launch, plan, store, left, states)


def _forgive(
    plan: Plan,
    store: Store,
    states: Mapping[str, StageState],
    queued: Mapping[str, tuple[str, Queued]],
) -> dict[str, StageState]:
    for stage, state in states.items():
        if state.name == "failed" and failure.blocks(store.failures(stage)):
            store.record_failure(stage, {"class": failure.RETRY, "message": "retry=failed"})
    return stage_states(store, plan.stages, queued)


def _require_data(launch: Launch) -> None:
    """Say now what a worker would find out later; download here, where there may be a network."""
    from harness.data.catalog import CATALOG, missing

    for name in sorted({trial.config.dataset.name for trial in launch.grid.trials}):
        info = CATALOG[name]
        problem = missing(info, launch.run.data_root)
        if problem is None:
            continue
        if info.torchvision is None or importlib.util.find_spec("torchvision") is None:
            raise UserError(problem)
        from harness.data.download import download

        print(f"the data set {name} is not there, downloading it", flush=True)
        download(info, launch.run.data_root)


def _write_sweep(launch: Launch, plan: Plan, store: Store) -> None:
    """`sweeps/<name>/`: the composed grid and every trial with its path of stages."""
    folder = make_folder(store.sweep_folder(launch.grid.name))
    atomic_write(folder / "grid.json", (json.dumps(launch.resolved, indent=1) + "\n").encode())
    lines = [
        json.dumps({"trial": trial.id, **trial.cell, "stages": plan.paths[trial.id]}) + "\n"
        for trial in plan.trials
    ]
    atomic_write(folder / "trials.jsonl", "".join(lines).encode())


def _queue(
    launch: Launch,
    plan: Plan,
    store: Store,
    left: list[str],
    states: Mapping[str, StageState],
) -> int:
    """Hand the work to SLURM and leave: a job for each tree of stages."""
    from harness.cluster import arrays, snapshot

    if shutil.which("sbatch") is None:
        raise UserError(
            f"cluster={launch.cluster.name} needs SLURM and sbatch is not installed here: launch "
            "from a login node, or with cluster=local"
        )
    parts = [gangs(plan, set(tree), launch.run.gang) for tree in trees(plan, left)]
    submission = _submission(launch, plan, store, left, parts, None)
    folder = store.sweep_folder(launch.grid.name)
    jobs = arrays.submit(submission, launch.cluster, folder, snapshot.take(folder))
    print(describe.starting(plan, states, left, min(launch.cluster.workers, len(parts))))
    print(f"queued {len(jobs):,} jobs: {jobs[0]} to {jobs[-1]}; see harness.status")
    return 0


def _submission(
    launch: Launch,
    plan: Plan,
    store: Store,
    left: list[str],
    parts: list[list[list[str]]],
    launcher: tuple[int, str] | None,
) -> Submission:
    from harness.cluster.worker import Submission

    needed = {ancestor for stage in left for ancestor in describe.lineage(plan.stages, stage)}
    return Submission(
        store=store.root,
        run=launch.run,
        stages={stage: config for stage, config in plan.stages.items() if stage in needed},
        parts=parts,
        launcher=launcher,
    )


def _run_here(
    launch: Launch,
    plan: Plan,
    store: Store,
    left: list[str],
    states: Mapping[str, StageState],
) -> int:
    """Train with worker processes of this machine, and stay until they are finished."""
    from harness.cluster.follow import Progress, duration, follow
    from harness.cluster.stop import StopFlag
    from harness.cluster.submit import LocalJobs

    begun = time.monotonic()
    groups = gangs(plan, set(left), launch.run.gang)
    launcher = (os.getpid(), process_start(os.getpid()) or "")
    submission = _submission(launch, plan, store, left, [groups], launcher)
    workers = min(launch.cluster.workers, len(groups))
    print(describe.starting(plan, states, left, workers), flush=True)
    stop = StopFlag().install()
    jobs = LocalJobs(submission, launch.cluster, store.sweep_folder(launch.grid.name))
    progress = Progress(store, plan.stages, list(plan.paths.values()))
    end, why = follow(jobs, workers, progress, stop)
    states = stage_states(store, plan.stages)
    print(describe.ended(plan, states, duration(time.monotonic() - begun), jobs.folder))
    if end == "stopped":
        print("stopped; the same command goes on from here")
        return 130
    if end != "finished":
        raise UserError(f"the sweep ended early ({end}): {why}")
    return 1 if any(state.name == "failed" for state in states.values()) else 0


if __name__ == "__main__":
    command(main)
