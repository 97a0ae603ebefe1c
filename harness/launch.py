"""Run a sweep, or what is left of it: the same command.

python -m harness.launch grid=quickstart dry_run=true
python -m harness.launch grid=quickstart cluster.workers=2
python -m harness.launch grid=quickstart retry=failed where="width < 1"
"""

from __future__ import annotations

import importlib.util
import json
import os
import time
from collections.abc import Collection, Mapping

from harness import describe
from harness.arguments import Option
from harness.cluster import failure, queued
from harness.cluster.queued import Scheduler
from harness.cluster.select import select
from harness.cluster.state import stage_states
from harness.config import Launch, grid_files, load
from harness.errors import UserError, command
from harness.files import Damaged, atomic_write, make_folder
from harness.store.claims import process_start, try_claim
from harness.store.store import Store
from harness.sweep import cost
from harness.sweep.check import depends_on_layers
from harness.sweep.mistakes import Mistakes
from harness.sweep.plan import Plan, gangs, lineage, make_plan, todo
from harness.sweep.states import StageState
from harness.verb import callable_module

RETRY = {"failed": ("failed",), "all": ("failed", "diverged")}
OPTIONS = {
    "dry_run": Option(bool, default=False),
    "retry": Option(choices=RETRY),
    "budget": Option(float, low=0, high=1e9, quantity="a number of device-hours", example="12.5"),
    "where": Option(),
}


def usage() -> str:
    """The help text, with the shipped grids."""
    return describe.usage(grid_files())


def main(args: list[str]) -> int:
    """The command; returns its exit code."""
    launch = load(args, OPTIONS, trains=True)
    retry = launch.options["retry"]
    plan = make_plan(launch.grid)
    store = Store(launch.store)
    scheduler = queued.ask(store.root, None if launch.options["dry_run"] else _wait)
    states = stage_states(store, plan.stages, scheduler)
    wanted = {stage for trial in select(plan, states, launch) for stage in trial["stages"]}
    if retry is not None and launch.options["dry_run"]:
        states = _forgiven(states, RETRY[retry], wanted)
    elif retry is not None:
        states = _forgive(plan, store, states, scheduler, RETRY[retry], wanted)
    left = _left(launch, plan, store, states, wanted)
    _keep_budget(launch, plan, store, states, left)
    if launch.options["dry_run"]:
        print(describe.dry_run(launch, plan, states, left))
        return 1 if any(state.name == "damaged" for state in states.values()) else 0
    if scheduler.asked:
        from harness.cluster import handover

        handover.release(scheduler)
    if not left:
        print(describe.nothing_left(plan, states))
        return 1 if any(states[stage].name == "failed" for stage in wanted) else 0
    notes = [*describe.unchecked(launch), *_check_layers(plan, left)]
    for sentence in notes:
        print(f"note: {sentence}")
    _require_data(launch)
    _write_sweep(launch, plan, store)
    for line in describe.gang_lines(launch, plan, left):
        print(line)
    if launch.cluster.executor == "slurm":
        return _queue(launch, plan, store, wanted)
    return _run_here(launch, plan, store, left, states)


def _keep_budget(
    launch: Launch,
    plan: Plan,
    store: Store,
    states: Mapping[str, StageState],
    left: list[str],
) -> None:
    """Raise UserError where the stages `left`, and those under way, cost more than `budget`."""
    hours = launch.options["budget"]
    if hours is None:
        return
    under_way = [
        stage
        for stage, state in states.items()
        if state.name in ("queued", "running", "disputed") and stage not in left
    ]
    cost.check_budget(plan, states, [*left, *under_way], store.root, hours)


def _wait() -> None:
    """While the controller is away: nothing is held that would have to be kept alive."""


def _left(
    launch: Launch,
    plan: Plan,
    store: Store,
    states: Mapping[str, StageState],
    wanted: Collection[str],
) -> list[str]:
    """Stages to train, of those `wanted`.

    Workers here also stay for what others train; jobs are not queued for it.
    """
    names = {stage: state.name for stage, state in states.items()}
    left = [stage for stage in todo(plan, names, store.has_weights) if stage in wanted]
    if launch.cluster.executor == "slurm":
        return [stage for stage in left if names[stage] != "running"]
    return left


def _set_aside(store: Store, left: list[str], states: Mapping[str, StageState]) -> int:
    """Of the stages `left`, move away what is damaged, and results whose weights are gone.

    Returns how many were damaged.
    """
    there = [stage for stage in left if states[stage].name in ("damaged", "done")]
    return sum(_move_result(store, stage, again=False) for stage in there)


def _move_result(store: Store, stage: str, again: bool) -> bool:
    """Under a claim, and only what is so now: another launch may have done the stage since.

    With `again`, also a result that nothing is wrong with. Returns whether it was damaged.
    """
    claim = try_claim(store.folder(stage), f"launch-{os.getpid()}")
    if claim is None:  # someone trains it, who has seen to it
        return False
    try:
        result = store.result(stage)
        if again and result["status"] == "diverged":
            why = f"{stage} diverged, and retry=all asks for it again"
            store.set_aside(stage, why, "replaced")
        elif not again and not store.has_weights(stage):
            why = f"the weights of {stage} were not kept and a child needs them"
            store.set_aside(stage, why, "replaced")
    except FileNotFoundError:
        return False
    except Damaged as error:
        store.set_aside(stage, str(error))
        return True
    finally:
        claim.release()
    return False


def _forgiven(
    states: Mapping[str, StageState], names: tuple[str, ...], wanted: Collection[str]
) -> dict[str, StageState]:
    """States as `_forgive` would make them."""
    return {
        stage: StageState("waiting") if state.name in names and stage in wanted else state
        for stage, state in states.items()
    }


def _forgive(
    plan: Plan,
    store: Store,
    states: Mapping[str, StageState],
    scheduler: Scheduler,
    names: tuple[str, ...],
    wanted: Collection[str],
) -> dict[str, StageState]:
    for stage, state in states.items():
        if state.name not in names or stage not in wanted:
            continue
        if state.result is not None:
            _move_result(store, stage, again=True)
        elif failure.blocks(store.failures(stage)):
            store.record_failure(stage, {"class": failure.RETRY, "message": "retry=failed"})
    return stage_states(store, plan.stages, scheduler)


def _check_layers(plan: Plan, left: list[str]) -> list[str]:
    """Refuse what no layer of a model suits. Without torch a note says that it was not looked at.

    Raises UserError, naming every such model.
    """
    wanted = [plan.stages[stage] for stage in left if depends_on_layers(plan.stages[stage])]
    if not wanted:
        return []
    try:
        from harness.compress import layers
    except ImportError:
        return ["torch cannot be imported here, so whether every model has layers that suit its "
                "pruning and surplus was not checked"]  # fmt: skip
    found = Mistakes()
    for sentence in layers.misfits(wanted):
        key, _, rest = sentence.partition(": ")
        found.add(key, rest)
    found.raise_any("the grid has")
    return []


def _require_data(launch: Launch) -> None:
    """Say now what a worker would find out later; download here, where there may be a network."""
    from harness.data.catalog import CATALOG, missing

    downloads = importlib.util.find_spec("torchvision") is not None
    for config, problem in describe.data_problems(launch):
        info = CATALOG[config.name]
        absent = problem == missing(info, launch.run.data_root)
        if info.torchvision is None or not downloads or not absent:
            raise UserError(problem)
        from harness.data.download import download

        print(f"the data set {info.name} is not there, downloading it", flush=True)
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


def _queue(launch: Launch, plan: Plan, store: Store, wanted: Collection[str]) -> int:
    """Hand the work to SLURM and leave; undisturbed by other launches of the same store."""
    from harness.cluster import handover

    handover.require_sbatch(launch.cluster)
    with queued.submitting(store.root) as lock:
        scheduler = queued.ask(store.root, lock.heartbeat)
        states = stage_states(store, plan.stages, scheduler)
        left = _left(launch, plan, store, states, wanted)
        _keep_budget(launch, plan, store, states, left)  # another launch may have queued more
        damaged = _set_aside(store, left, states)
        handover.reap(store, left, scheduler)
        queue = handover.submit(launch, plan, store, left, states, scheduler, lock)
    print(describe.starting(plan, states, left, min(launch.cluster.workers, len(queue.jobs))))
    if queue.jobs:
        print(f"queued {len(queue.jobs):,} jobs: {queue.jobs[0]} to {queue.jobs[-1]}")
        print("they need nothing from this machine any more; see harness.status")
    if queue.refused:
        print(
            f"{queue.refused:,} stages found no room ({queue.why}): launch again when some of the "
            "others are done"
        )
    return _damage_told(damaged)


def _run_here(
    launch: Launch,
    plan: Plan,
    store: Store,
    left: list[str],
    states: Mapping[str, StageState],
) -> int:
    """Train with worker processes of this machine, and stay until they are finished."""
    from harness.cluster.follow import Progress, duration, follow
    from harness.cluster.local import LocalJobs
    from harness.cluster.stop import StopFlag
    from harness.cluster.submission import Submission

    begun = time.monotonic()
    needed = {ancestor for stage in left for ancestor in lineage(plan.stages, stage)}
    known_damage = store.damaged_files(needed & store.ids())
    _set_aside(store, left, states)
    measured = cost.read_measurements(store.root, plan)
    groups = gangs(plan, left, cost.join_rule(plan, launch.run, launch.cluster, measured))
    workers = min(launch.cluster.workers, len(groups))
    submission = Submission(
        store=store.root,
        sweep=launch.grid.name,
        run=launch.run,
        cluster=launch.cluster.model_copy(update={"workers": workers}),
        stages={stage: config for stage, config in plan.stages.items() if stage in needed},
        parts=[groups],
        launcher=(os.getpid(), process_start(os.getpid()) or ""),
    )
    print(describe.starting(plan, states, left, workers), flush=True)
    with StopFlag() as stop:
        jobs = LocalJobs(submission, launch.cluster, store.sweep_folder(launch.grid.name))
        progress = Progress(store, plan.stages, list(plan.paths.values()))
        end, why = follow(jobs, workers, progress, stop)
    states = stage_states(store, plan.stages)
    damage = _damage_told(len(store.damaged_files(needed & store.ids()) - known_damage))
    print(describe.ended(plan, states, duration(time.monotonic() - begun), jobs.folder))
    if end == "stopped":
        print("stopped; the same command goes on from here")
        return 130
    if end != "finished":
        why = why.rstrip(".")
        raise UserError(f"the sweep ended early ({end}): {why}. The same command goes on from here")
    whole = all(state.name in ("done", "diverged") for state in states.values())
    return damage if whole else 1


def _damage_told(files: int) -> int:
    """The exit code of a launch that found so many damaged files, after a sentence about them."""
    if files:
        print(
            f"{files:,} damaged file(s) were moved aside, to do their work again: see whether the "
            "store's disk is sound. This once the exit code tells of it"
        )
    return 1 if files else 0


callable_module(__name__)

if __name__ == "__main__":
    command(main, usage)
