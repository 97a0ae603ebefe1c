"""What launch prints about a sweep: the dry run, and sentences for its start and its end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from harness.cluster import Sweep
from harness.commands.evaluate import describe_planned
from harness.commands.settled import describe_bounds
from harness.config import Launch
from harness.states import ENDED, FINISHED, StageState, trial_state
from harness.sweep import cost
from harness.sweep.jobs import device_seconds, make_jobs
from harness.sweep.plan import Plan, dense_stage, gangs, stages_before_sharing

MOST_FAILURES = 5  # printed; the others are counted
States = Mapping[str, StageState]


def describe_dry_run(sweep: Sweep, remaining: Sequence[str], notes: Sequence[str] = ()) -> str:
    """Return cells per rule, trials, stages with and without sharing, jobs, cost and `notes`."""
    launch, plan, states = sweep.launch, sweep.plan, sweep.states
    lines = [f"grid {launch.grid.name}, store {launch.store}"]
    lines += [f"  {count:>+8,} cells  {rule}" for rule, count in launch.grid.rules]
    lines.append(f"  {len(plan.trials):>8,} trials")
    unshared = stages_before_sharing(plan)
    is_cut = any(config.continues is not None for config in plan.stages.values())
    alone = "without sharing and trunks" if is_cut else "without sharing"
    lines.append(f"  {len(plan.stages):>8,} stages ({unshared:,} {alone})")
    for name, count in sorted(Counter(state.name for state in states.values()).items()):
        lines.append(f"  {count:>8,} stages {name}")
    if again := sum(states[stage].name == "done" for stage in remaining):
        lines.append(
            f"  {again:>8,} of the done stages are trained again: other stages start from their "
            "weights or optimizer, which were not kept"
        )
    measured = cost.read_measurements(launch.store, plan)
    if launch.cluster.executor == "slurm":
        jobs, gang_count = _describe_jobs(launch, plan, states, remaining)
        lines += jobs
    else:
        joins = cost.join_rule(plan, launch.run, launch.cluster, measured)
        gang_count = len(gangs(plan, remaining, joins))
    workers = launch.cluster.workers
    if sweep.settlement is not None:
        lines += describe_bounds(sweep, remaining)
    lines += [
        f"  {len(remaining):>8,} stages to train, in {gang_count:,} gangs, "
        f"by {min(workers, gang_count)} worker(s) of cluster {launch.cluster.name}",
        f"  {cost.describe_remaining_cost(plan, states, remaining, workers, launch.store)}",
        f"  {cost.describe_sharing(plan, states, launch.store)}",
        *cost.describe_trunks(plan),
        *describe_gangs(launch, plan, remaining),
        *[f"  {line}" for line in describe_planned(sweep, remaining)],
        *cost.describe_sizes(plan, states, remaining, launch.store),
        *[
            f"  damaged: {s.why}; launch does it again"
            for s in states.values()
            if s.name == "damaged"
        ],
        *[f"  note: {sentence}" for sentence in notes],
    ]
    return "\n".join(lines)


def _describe_jobs(
    launch: Launch, plan: Plan, states: States, remaining: Sequence[str]
) -> tuple[list[str], int]:
    """Return lines on the jobs that would train the stages, and the number of gangs in them.

    One line counts the jobs, and one for each kind of job has its options of sbatch.

    Requests for more memory after failures are not considered.
    """
    from harness.cluster.sbatch import job_options  # imports submitit

    rates = cost.seconds_per_epoch(plan, states, launch.store)
    groups = make_jobs(
        plan,
        remaining,
        launch.cluster,
        launch.run,
        device_seconds(rates, plan),
        measured=cost.read_measurements(launch.store, plan),
    )
    jobs = [job for group in groups for job in group.jobs]
    limits = sorted({group.cluster.timeout_min for group in groups})
    minutes = " or ".join(f"{limit:,}" for limit in limits) or "0"
    lines = [f"  {len(jobs):>8,} jobs of {minutes} minutes"]
    for group in groups:
        options = " ".join(job_options(group.cluster, group.run))
        lines.append(f"  {len(group.jobs):>8,} x sbatch {options}")
    return lines, sum(len(job) for job in jobs)


def describe_gangs(launch: Launch, plan: Plan, remaining: Sequence[str]) -> list[str]:
    """Return a line per size with the gang that `run.gang=auto` chose; none for a fixed number."""
    if launch.run.gang != "auto":
        return []
    measured = cost.read_measurements(launch.store, plan)
    lines = []
    for size, stage in {cost.size_key(plan.stages[stage]): stage for stage in remaining}.items():
        measurement = measured.get(size)
        cluster, run = launch.job_settings(plan.stages[dense_stage(plan, stage)])
        if measurement is None:
            gang = "1, no pilot: python -m harness.pilot"
        elif not measurement.matches(run):
            gang = (
                f"1, its pilot ran on {measurement.device} with engine "
                f"{measurement.engine or 'unknown'}, ZeRO stage {measurement.zero_stage}, "
                f"micro-batch {measurement.micro_batch_size or 'whole'}, "
                f"loader {measurement.loader or 'unknown'}, "
                f"cache {measurement.data_cache or 'unknown'}: python -m harness.pilot"
            )
        else:
            joins = cost.join_rule(plan, run, cluster, measured)
            members: list[str] = []
            while joins(members, stage):
                members.append(stage)
            memory = cost.usable_memory(measurement, run, cluster)
            gang = (
                f"{max(1, len(members))}, {measurement.data_share:.0%} of a step waits for data "
                f"(pays from {cost.WAITS_FOR_DATA:.0%}), {measurement.memory_bytes / 1e9:.2f} of "
                f"{memory / 1e9:.1f} GB each"
            )
        lines.append(f"  gang of {cost.describe_size(size)}: {gang}")
    return lines


def describe_start(plan: Plan, states: States, remaining: Sequence[str], workers: int) -> str:
    """Return the first line of a launch."""
    done = sum(state.name in FINISHED for state in states.values())
    return (
        f"{len(plan.trials):,} trials, {len(plan.stages):,} stages: {done:,} done, "
        f"{len(remaining):,} to train with {workers} worker(s)"
    )


def describe_nothing_left(sweep: Sweep) -> str:
    """Return what a launch prints that has no stage of the selected trials to train."""
    states = {stage: sweep.states[stage] for stage in sweep.stages()}
    paths = [trial["stages"] for trial in sweep.trials]
    have_ended = all(trial_state(path, states).name in ENDED for path in paths)
    reason = "nothing left to do" if have_ended else "nothing to add, all of it is under way"
    lines = [f"{reason}: {_trial_counts(paths, states)}", *_failed_stages(states)]
    if len(lines) > 1:
        lines.append("try them again with retry=failed")
    return "\n".join(lines)


def describe_end(plan: Plan, states: States, duration: str, logs: Path) -> str:
    """Return what a launch prints after its workers have ended."""
    counts = f"{_trial_counts(plan.paths.values(), states)}; {duration}; logs in {logs}"
    return "\n".join([counts, *_failed_stages(states)])


def _trial_counts(paths: Collection[Sequence[str]], states: States) -> str:
    counts = Counter(trial_state(path, states).name for path in paths)
    by_state = ", ".join(f"{count:,} {name}" for name, count in sorted(counts.items()))
    return f"{len(paths):,} trials: {by_state}"


def _failed_stages(states: States) -> list[str]:
    """Return a heading and a line for each failed stage; nothing if none failed."""
    failed = [f"  {stage}: {s.why}" for stage, s in states.items() if s.name == "failed"]
    if not failed:
        return []
    lines = ["failed stages:", *failed[:MOST_FAILURES]]
    if len(failed) > MOST_FAILURES:
        lines.append(f"  and {len(failed) - MOST_FAILURES} more: see harness.status")
    return lines
