"""From stages to jobs: small trees share a job, a tree too long for a job becomes a chain of them.

How long a stage takes is known where stages of its size were measured. A job is filled up to a
share of its time limit, and never so full that there are fewer jobs than may run at once. What was
never measured gets a job for each tree. A stage longer than a limit goes on after a requeue.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

from harness.cluster_schema import ClusterConfig, ResourceRule
from harness.schema import RunConfig, StageConfig
from harness.sweep.cost import Measurement, Size, join_rule, stage_seconds
from harness.sweep.plan import Joins, Plan, gangs, stream_key, trees
from harness.sweep.where import parse

Seconds = Callable[[str], float | None]
Job = list[list[str]]  # gangs in order, parents first
RULE_NAMES = ("dataset", "family", "depth", "width", "batch_size", "epochs")


@dataclass(frozen=True)
class Chains:
    """Jobs that ask for the same resources; each job of a chain starts after the one before."""

    cluster: ClusterConfig
    run: RunConfig
    chains: list[list[Job]]
    after: frozenset[str] = frozenset()  # jobs of other sweeps that train what these start from


def make_chains(
    plan: Plan,
    left: Collection[str],
    cluster: ClusterConfig,
    run: RunConfig,
    seconds: Seconds,
    memory_factor: Callable[[str], int] = lambda stage: 1,
    held_by: Mapping[str, str] | None = None,
    measured: Mapping[Size, Measurement] | None = None,
) -> list[Chains]:
    """The stages `left`, by resources and in chains of jobs.

    `seconds`: of a device for a stage, None where nobody knows. `memory_factor`: how
    often the profile's memory a stage needs, after it ran out. `held_by`: stages that a job has
    already, which is waited for where they are parents. `measured`: by size, for `run.gang=auto`.
    """
    groups: dict[tuple[ResourceRule | None, int, bool], list[list[str]]] = {}
    held = held_by or {}
    waits: dict[tuple[ResourceRule | None, int, bool], set[str]] = {}
    for tree in trees(plan, left):
        rule = _rule(plan.stages[_root(plan, tree[0])], cluster)
        factor = max(memory_factor(stage) for stage in tree)
        parents = {parent for stage in tree if (parent := plan.stages[stage].parent)}
        after = {held[parent] for parent in parents if parent in held}
        # one group whatever they wait for: the running cap is of a group's array
        key = rule, factor, bool(after)
        groups.setdefault(key, []).append(tree)
        waits.setdefault(key, set()).update(after)
    found = []
    for (rule, factor, waiting), parts in groups.items():
        asked, how = applied(cluster, run, rule, factor)
        joins = join_rule(plan, how, asked, measured or {})
        units = _units(plan, parts, joins)
        share = asked.timeout_min * 60 * asked.slurm.pack_share
        chains = _packed(units, share, asked.workers, _shared(seconds, how.processes))
        jobs = [[gangs(plan, job, joins) for job in chain] for chain in chains]
        found.append(Chains(asked, how, jobs, frozenset(waits[rule, factor, waiting])))
    return found


def _shared(seconds: Seconds, processes: int) -> Seconds:
    """What passes by where so many devices train a stage together."""

    def passed(stage: str) -> float | None:
        found = seconds(stage)
        return None if found is None else found / processes

    return passed


def _root(plan: Plan, stage: str) -> str:
    """The dense stage that a stage descends from, which rules are about."""
    while (parent := plan.stages[stage].parent) is not None:
        stage = parent
    return stage


def _rule(config: StageConfig, cluster: ClusterConfig) -> ResourceRule | None:
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


def asked_for(
    plan: Plan, stage: str, cluster: ClusterConfig, run: RunConfig
) -> tuple[ClusterConfig, RunConfig]:
    """Profile and run of a stage: with what a rule for its size says, where jobs are queued."""
    if cluster.executor == "local":
        return cluster, run
    return applied(cluster, run, _rule(plan.stages[_root(plan, stage)], cluster))


def applied(
    cluster: ClusterConfig, run: RunConfig, rule: ResourceRule | None, factor: int = 1
) -> tuple[ClusterConfig, RunConfig]:
    """Profile and run with what a rule says, and memory for stages that ran out of it."""
    said = {} if rule is None else rule.model_dump(exclude_none=True, exclude={"where"})

    def taken(model: ClusterConfig | RunConfig | object) -> dict[str, object]:
        return {key: value for key, value in said.items() if hasattr(model, key)}

    slurm = cluster.slurm.model_copy(update=taken(cluster.slurm))
    if slurm.mem_gb and slurm.max_mem_gb:
        more = min(slurm.mem_gb * factor, max(slurm.mem_gb, slurm.max_mem_gb))
        slurm = slurm.model_copy(update={"mem_gb": more})
    asked = cluster.model_copy(update={**taken(cluster), "slurm": slurm})
    how = run.model_copy(update=taken(run))
    if asked.executor == "slurm" and asked.gpus_per_node and how.device == "auto":
        how = how.model_copy(update={"device": "cuda"})  # not a CPU, where a node's GPU is broken
    return asked, how


def _units(plan: Plan, parts: Iterable[list[str]], joins: Joins) -> list[list[str]]:
    """Trees whose stages will train side by side belong together."""
    by_first = {tree[0]: tree for tree in parts}
    open_units: dict[tuple[object, ...], list[str]] = {}  # the first stages of a unit's trees
    units: list[list[str]] = []
    for first in by_first:
        key = stream_key(plan.stages[first])
        unit = open_units.get(key)
        if not joins([], first):
            units.append([first])
        elif unit is None or not joins(unit, first):
            open_units[key] = [first]
            units.append(open_units[key])
        else:
            unit.append(first)
    return [[stage for first in unit for stage in by_first[first]] for unit in units]


def _packed(
    units: list[list[str]], share: float, workers: int, seconds: Seconds
) -> list[list[list[str]]]:
    """Chains of jobs, a job being stages with parents first."""
    chains: list[list[list[str]]] = []
    known: list[tuple[float, list[str]]] = []
    for unit in units:
        times = [seconds(stage) for stage in unit]
        if any(time is None for time in times):
            chains.append([unit])
        else:
            known.append((sum(time or 0.0 for time in times), unit))
    chains += [_cut(unit, share, seconds) for total, unit in known if total > share]
    known = [(total, unit) for total, unit in known if total <= share]
    budget = min(share, sum(total for total, _ in known) / workers)
    return chains + [[job] for job in _filled(known, budget)]


def _filled(units: list[tuple[float, list[str]]], budget: float) -> list[list[str]]:
    """About total / `budget` jobs of about equal length: the longest unit to the emptiest job."""
    if not units:
        return []
    total = sum(seconds for seconds, _ in units)
    count = min(len(units), math.ceil(total / budget)) if budget > 0 else len(units)
    emptiest: list[tuple[float, int, list[str]]] = [(0.0, number, []) for number in range(count)]
    for seconds, unit in sorted(units, key=lambda item: -item[0]):
        used, number, content = emptiest[0]
        content.extend(unit)
        heapq.heapreplace(emptiest, (used + seconds, number, content))
    return [content for _, _, content in emptiest]


def _cut(unit: list[str], share: float, seconds: Seconds) -> list[list[str]]:
    """A unit in consecutive jobs of up to `share` seconds, at least one stage each."""
    jobs: list[list[str]] = [[]]
    used = 0.0
    for stage in unit:
        needed = seconds(stage) or 0.0
        if jobs[-1] and used + needed > share:
            jobs.append([])
            used = 0.0
        jobs[-1].append(stage)
        used += needed
    return jobs


def stages_of(job: Job) -> list[str]:
    """All stages of a job, in order."""
    return [stage for gang in job for stage in gang]


def device_seconds(rates: Mapping[Size, float], plan: Plan) -> Seconds:
    """Return the function from a stage to its device-seconds; `rates`: per epoch of each size."""
    return lambda stage: stage_seconds(plan.stages[stage], rates)
