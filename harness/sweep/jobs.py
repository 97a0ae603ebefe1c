"""Pack the stages that are left to train into jobs: a job is a tree of stages, or several.

Seconds per stage are known for sizes that were measured. Small trees share a job, which is filled
up to a share of its time limit, but there are never fewer jobs than may run at once. A tree of a
size that was never measured gets a job of its own, and so does a tree that takes longer than that
share. A job that reaches its time limit saves, is requeued and goes on.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

from harness.cluster_schema import ClusterConfig, ResourceRule
from harness.run_schema import RunConfig
from harness.schema import StageConfig, TrialConfig
from harness.sweep.cost import Measurement, Size, join_rule, stage_seconds
from harness.sweep.plan import (
    Joins,
    Plan,
    dense_stage,
    gangs,
    grouped,
    stream_key,
    trees,
)
from harness.sweep.where import parse

Seconds = Callable[[str], float | None]
Job = list[list[str]]  # gangs in order, parents first
RULE_NAMES = ("dataset", "family", "depth", "width", "batch_size", "epochs")


@dataclass(frozen=True)
class JobGroup:
    """Jobs that ask SLURM for the same resources.

    `after`: ids of jobs, submitted earlier, that train parents of these stages. The group starts
    when they have ended.
    """

    cluster: ClusterConfig
    run: RunConfig
    jobs: list[Job]
    after: frozenset[str] = frozenset()


def make_jobs(
    plan: Plan,
    todo: Collection[str],
    cluster: ClusterConfig,
    run: RunConfig,
    seconds: Seconds,
    memory_factor: Callable[[str], int] = lambda stage: 1,
    held_by: Mapping[str, str] | None = None,
    measured: Mapping[Size, Measurement] | None = None,
) -> list[JobGroup]:
    """Return the stages `todo` as jobs, grouped by the resources that the jobs request.

    Args:
        plan: the whole sweep.
        todo: ids of the stages to train.
        cluster: the profile, whose rules give some sizes other resources.
        run: operational settings, which the rules may change, too.
        seconds: device-seconds of a stage, or None where its size was never measured.
        memory_factor: the multiple of the profile's memory that a stage needs, because it ran out.
        held_by: for stages that another job already has, the id of that job.
        measured: measurements by size, for `run.gang=auto`.
    """
    held = held_by or {}
    trees_of: dict[tuple[ResourceRule | None, int, bool], list[list[str]]] = {}
    after_of: dict[tuple[ResourceRule | None, int, bool], set[str]] = {}
    for tree in trees(plan, todo):
        rule = _matching_rule(longest_dense(plan, tree), cluster)
        factor = max(memory_factor(stage) for stage in tree)
        origins = {origin for stage in tree if (origin := plan.stages[stage].origin)}
        after = {held[origin] for origin in origins if origin in held}
        # one group for all trees that wait: `cluster.workers` limits the jobs of each group's array
        key = rule, factor, bool(after)
        trees_of.setdefault(key, []).append(tree)
        after_of.setdefault(key, set()).update(after)
    groups = []
    for key, members in trees_of.items():
        rule, factor, _ = key
        job_cluster, job_run = apply_rule(cluster, run, rule, factor)
        joins = join_rule(plan, job_run, job_cluster, measured or {})
        units = _units(plan, members, joins)
        share = job_cluster.timeout_min * 60 * job_cluster.slurm.pack_share
        packed = _pack(units, share * job_run.processes, job_cluster.workers, seconds)
        jobs = [gangs(plan, stages, joins) for stages in packed]
        groups.append(JobGroup(job_cluster, job_run, jobs, frozenset(after_of[key])))
    return groups


def longest_dense(plan: Plan, tree: Iterable[str]) -> StageConfig:
    """Return the longest dense stage of a tree, which chooses the resource rule of its job."""
    dense = {dense_stage(plan, stage) for stage in tree}
    longest = max(dense, key=lambda stage: (plan.stages[stage].recipe.epochs, stage))
    return plan.stages[longest]


def _matching_rule(
    config: StageConfig | TrialConfig, cluster: ClusterConfig
) -> ResourceRule | None:
    """Return the first resource rule whose condition holds for a dense stage, or for a trial's."""
    values = {
        "dataset": config.dataset.name,
        "family": config.model.family,
        "depth": config.model.depth,
        "width": config.model.width,
        "batch_size": config.recipe.batch_size,
        "epochs": config.recipe.epochs,
    }
    for rule in cluster.resources:
        if parse(rule.where, RULE_NAMES).holds(values):
            return rule
    return None


def resources_for(
    config: StageConfig | TrialConfig, cluster: ClusterConfig, run: RunConfig
) -> tuple[ClusterConfig, RunConfig]:
    """Return profile and run settings of a dense stage or a trial, after the rule for its size.

    On this machine (executor `local`) rules do not apply.
    """
    rule = None if cluster.executor == "local" else _matching_rule(config, cluster)
    return apply_rule(cluster, run, rule)


def apply_rule(
    cluster: ClusterConfig, run: RunConfig, rule: ResourceRule | None, factor: int = 1
) -> tuple[ClusterConfig, RunConfig]:
    """Return profile and run settings with a rule's values, and memory multiplied by `factor`."""
    values = {} if rule is None else rule.model_dump(exclude_none=True, exclude={"where"})

    def values_of(model: ClusterConfig | RunConfig | object) -> dict[str, object]:
        return {key: value for key, value in values.items() if hasattr(model, key)}

    slurm = cluster.slurm.model_copy(update=values_of(cluster.slurm))
    if slurm.mem_gb and slurm.max_mem_gb:
        mem_gb = min(slurm.mem_gb * factor, max(slurm.mem_gb, slurm.max_mem_gb))
        slurm = slurm.model_copy(update={"mem_gb": mem_gb})
    job_cluster = cluster.model_copy(update={**values_of(cluster), "slurm": slurm})
    return job_cluster, on_gpus(job_cluster, run.model_copy(update=values_of(run)))


def on_gpus(cluster: ClusterConfig, run: RunConfig) -> RunConfig:
    """Return `run` with device cuda where the cluster gives GPUs: a broken one is then an error."""
    if cluster.gpus_per_node and run.device == "auto":
        return run.model_copy(update={"device": "cuda"})
    return run


def _units(plan: Plan, parts: Iterable[list[str]], joins: Joins) -> list[list[str]]:
    """Return the trees as units of packing: trees whose stages train in one gang are one unit."""
    tree_of = {tree[0]: tree for tree in parts}
    units = grouped(tree_of, lambda first: stream_key(plan.stages[first]), joins)
    return [[stage for first in unit for stage in tree_of[first]] for unit in units]


def _pack(units: list[list[str]], share: float, workers: int, seconds: Seconds) -> list[list[str]]:
    """Return the stages of each job, parents first.

    A job takes up to `share` device-seconds, or is one unit.
    """
    jobs: list[list[str]] = []
    short: list[tuple[float, list[str]]] = []
    for unit in units:
        times = [seconds(stage) for stage in unit]
        total = sum(time or 0.0 for time in times)
        if total > share or None in times:
            jobs.append(unit)
        else:
            short.append((total, unit))
    target = min(share, sum(total for total, _ in short) / workers)
    return jobs + _filled(short, target)


def _filled(units: list[tuple[float, list[str]]], target: float) -> list[list[str]]:
    """Return jobs of about `target` seconds: each unit, longest first, joins the shortest job."""
    if not units:
        return []
    total = sum(seconds for seconds, _ in units)
    count = min(len(units), math.ceil(total / target)) if target > 0 else len(units)
    heap: list[tuple[float, int, list[str]]] = [(0.0, number, []) for number in range(count)]
    for seconds, unit in sorted(units, key=lambda item: -item[0]):
        used, number, stages = heap[0]
        stages.extend(unit)
        heapq.heapreplace(heap, (used + seconds, number, stages))
    return [stages for _, _, stages in heap]


def stages_of(job: Job) -> list[str]:
    """Return all stages of a job, in order."""
    return [stage for gang in job for stage in gang]


def device_seconds(rates: Mapping[Size, float], plan: Plan) -> Seconds:
    """Return the function from a stage to its device-seconds; `rates`: per epoch of each size."""
    return lambda stage: stage_seconds(plan.stages[stage], rates)
