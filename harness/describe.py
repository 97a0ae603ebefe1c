"""What the launcher says: its help, the dry run, the first and the last lines of a sweep."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import printable
from harness.schema import DatasetConfig
from harness.sweep import cost
from harness.sweep.axes import SHORT
from harness.sweep.check import depends_on_layers
from harness.sweep.jobs import asked_for, device_seconds, make_chains
from harness.sweep.plan import Plan, gangs, stages_before_sharing

if TYPE_CHECKING:
    from harness.config import Launch
    from harness.sweep.states import StageState

USAGE = """usage: python -m harness.launch grid=NAME|path/to.yaml [key=value ...]

Run a sweep, or what is left of it: the same command. What is done is never done again.

verbs, each with --help
  python -m harness.launch  run or resume            python -m analysis.table   best per size
  python -m harness.status  every trial's state      python -m analysis.report  one page of it all
  python -m harness.cancel  take jobs back           python -m analysis.claims  tests of the claims
  python -m harness.logs    what jobs said           python -m analysis.figures curves
  python -m harness.doctor  what would not work      python -m analysis.rows    one line per trial
  python -m harness.pilot   what sizes cost          python -m analysis.compare two tables of rows
  python -m harness.difficulty     how difficult augmentations are, by a trained network's word
  python -m harness.augment        images as a policy makes them
  python -m harness.data.download  data sets         python -m harness.data.write  as one fast file

knobs
  dry_run=true           say what would run, what is shared, what it costs; write nothing
  retry=failed|all       try failed (all: and diverged) stages again
  where="width < 1"      only trials that this holds for: of axes, state, trial
  store=PATH             the folder of finished stages (runs/store)
  cluster=NAME           a profile of slurm/cluster/ (local)
  budget=HOURS           refuse to begin what would cost more device-hours
  cluster.workers=N      processes that train at once; cluster.gpus_per_node=N GPUs for them all
  run.gang=N|auto        stages side by side in a process, on one stream of batches
  run.engine=ddp         instead of deepspeed; run.processes=N ranks; run.zero_stage=1
  run.micro_batch_size=N gradient accumulation; run.device=cpu|cuda; run.threads=N
  run.deterministic=false   a GPU's fastest algorithms, whose bits do not repeat
  run.tracker=tensorboard|wandb|mlflow   copies of the metrics, under trackers/ of the store
  dataset= model= recipe=NAME   other groups; any dotted key: recipe.epochs=3 axes.seed=[0,1,2]
"""


def usage(grids: Mapping[str, str]) -> str:
    """The help text, with the shipped grids and the short names of axes."""
    width = max(map(len, grids), default=0)
    listed = "\n".join(f"  {name:<{width}}  {line}" for name, line in grids.items())
    return f"{USAGE}\ngrids\n{listed}\n\naxes: {', '.join(SHORT)}, or any dotted key"


def dry_run(
    launch: Launch, plan: Plan, states: Mapping[str, StageState], left: Sequence[str]
) -> str:
    """Cells per rule, trials, stages before and after sharing, what is done, jobs, cost."""
    lines = [f"grid {launch.grid.name}, store {launch.store}"]
    lines += [f"  {count:>+8,} cells  {rule}" for rule, count in launch.grid.rules]
    alone = stages_before_sharing(plan)
    lines.append(f"  {len(plan.trials):>8,} trials")
    lines.append(f"  {len(plan.stages):>8,} stages ({alone:,} without sharing)")
    for name, count in sorted(Counter(state.name for state in states.values()).items()):
        lines.append(f"  {count:>8,} stages {name}")
    if launch.cluster.executor == "slurm":
        said, count = _jobs(launch, plan, states, left)
        lines.append(said)
    else:
        joins = cost.join_rule(
            plan, launch.run, launch.cluster, cost.read_measurements(launch.store, plan)
        )
        count = len(gangs(plan, left, joins))
    lines.append(
        f"  {len(left):>8,} stages to train, in {count:,} gangs, "
        f"by {min(launch.cluster.workers, count)} worker(s) of cluster {launch.cluster.name}"
    )
    lines.append(
        "  "
        + cost.describe_remaining_cost(plan, states, left, launch.cluster.workers, launch.store)
    )
    lines.append("  " + cost.describe_sharing(plan, states, launch.store))
    lines += gang_lines(launch, plan, left)
    lines += cost.describe_sizes(plan, states, left, launch.store)
    lines += [printable(f"  damaged: {s.why}") for s in states.values() if s.name == "damaged"]
    lines += problems(launch)
    if any(depends_on_layers(plan.stages[stage]) for stage in left):
        lines.append("  note: layers are compared with pruning and surplus when this is launched")
    return "\n".join(lines)


def _jobs(
    launch: Launch, plan: Plan, states: Mapping[str, StageState], left: Sequence[str]
) -> tuple[str, int]:
    """How the stages would be packed into jobs, and how many gangs these hold.

    Memory raised after failures is not foreseen.
    """
    known = cost.seconds_per_epoch(plan, states, launch.store)
    seconds = device_seconds(known, plan)
    chains = [
        (chain, group.cluster)
        for group in make_chains(
            plan,
            left,
            launch.cluster,
            launch.run,
            seconds,
            measured=cost.read_measurements(launch.store, plan),
        )
        for chain in group.chains
    ]
    jobs = sum(len(chain) for chain, _ in chains)
    limits = sorted({cluster.timeout_min for _, cluster in chains})
    minutes = " or ".join(f"{limit:,}" for limit in limits) or "0"
    gangs_held = sum(len(job) for chain, _ in chains for job in chain)
    start = f"{len(chains):,} of which can start at once"
    return f"  {jobs:>8,} jobs of {minutes} minutes, {start}", gangs_held


def gang_lines(launch: Launch, plan: Plan, left: Sequence[str]) -> list[str]:
    """What `run.gang=auto` came to; nothing where the user gave a number."""
    if launch.run.gang != "auto":
        return []
    measured = cost.read_measurements(launch.store, plan)
    lines = []
    for size, stage in {cost.size_key(plan.stages[stage]): stage for stage in left}.items():
        pilot = measured.get(size)
        cluster, run = asked_for(plan, stage, launch.cluster, launch.run)
        if pilot is None:
            why = "1, no pilot: python -m harness.pilot"
        elif not pilot.matches(run):
            why = (
                f"1, its pilot ran on {pilot.device} with engine {pilot.engine or 'unknown'}, "
                f"ZeRO stage {pilot.zero_stage}, micro-batch {pilot.micro_batch_size or 'whole'}, "
                f"loader {pilot.loader or 'unknown'}, cache {pilot.data_cache or 'unknown'}: "
                "python -m harness.pilot"
            )
        else:
            joins = cost.join_rule(plan, run, cluster, measured)
            gang: list[str] = []
            while joins(gang, stage):
                gang.append(stage)
            room = cost.usable_memory(pilot, run, cluster)
            why = (
                f"{max(1, len(gang))}, {pilot.data_share:.0%} of a step waits for data (pays from "
                f"{cost.WAITS_FOR_DATA:.0%}), {pilot.memory_bytes / 1e9:.2f} of "
                f"{room / 1e9:.1f} GB each"
            )
        lines.append(f"  gang of {cost.describe_size(size)}: {why}")
    return lines


def problems(launch: Launch) -> list[str]:
    """What would keep the sweep from running on this machine."""
    from harness.train import trackers

    found = [problem for _, problem in data_problems(launch)]
    found.append(trackers.missing(launch.run.tracker) or "")
    found += unchecked(launch)
    return [f"  note: {sentence}" for sentence in dict.fromkeys(found) if sentence]


def data_problems(launch: Launch) -> Iterator[tuple[DatasetConfig, str]]:
    """The grid's data sets whose images this run could not read, and why."""
    from harness.data.source import ffcv_absent, problem

    run = launch.run
    contained = launch.cluster.slurm.python is not None  # where FFCV is, only the container knows
    for config in sorted({trial.config.dataset for trial in launch.grid.trials}, key=str):
        trouble = (lambda: None) if contained else ffcv_absent
        if said := problem(config, run.data_root, run.loader, trouble):
            yield config, said


def unchecked(launch: Launch) -> list[str]:
    """What could not be looked at beforehand."""
    from harness.sweep import teachers

    asked = {trial.config.teacher for trial in launch.grid.trials}
    said = [teachers.unchecked(str(teacher.name)) for teacher in asked if teacher.acts]
    return sorted({sentence for sentence in said if sentence})


def starting(
    plan: Plan, states: Mapping[str, StageState], left: Sequence[str], workers: int
) -> str:
    """The first line of a launch."""
    done = sum(state.name in ("done", "diverged") for state in states.values())
    return (
        f"{len(plan.trials):,} trials, {len(plan.stages):,} stages: {done:,} done, "
        f"{len(left):,} to train with {workers} worker(s)"
    )


def nothing_left(plan: Plan, states: Mapping[str, StageState]) -> str:
    """When every stage is settled."""
    failed = [(stage, state) for stage, state in states.items() if state.name == "failed"]
    settled = all(state.name in ("done", "diverged", "failed") for state in states.values())
    what = "nothing left to do" if settled else "nothing to add, all of it is under way"
    text = f"{what}: {_counts(plan, states)}"
    if failed:
        text += f"\n{_failures(failed)}\ntry them again with retry=failed"
    return text


def ended(plan: Plan, states: Mapping[str, StageState], took: str, logs: Path) -> str:
    """After the workers ended: counts, and the reasons of failures."""
    text = f"{_counts(plan, states)}; {took}; logs in {logs}"
    failed = [(stage, state) for stage, state in states.items() if state.name == "failed"]
    return f"{text}\n{_failures(failed)}" if failed else text


def _counts(plan: Plan, states: Mapping[str, StageState]) -> str:
    from harness.sweep.states import trial_state

    counts = Counter(trial_state(path, states).name for path in plan.paths.values())
    return f"{len(plan.trials):,} trials: " + ", ".join(
        f"{count:,} {name}" for name, count in sorted(counts.items())
    )


def _failures(failed: Sequence[tuple[str, StageState]]) -> str:
    shown = [f"  {stage}: {state.why}" for stage, state in failed[:5]]
    more = [f"  and {len(failed) - 5} more: see harness.status"] if len(failed) > 5 else []
    return printable("\n".join(["failed stages:", *shown, *more]))
