"""The plan of a grid: the path of every trial, and the tree of stages that the trials share."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from harness.schema import StageConfig
from harness.states import TO_TRAIN
from harness.store.identity import stage_id
from harness.sweep.grid import Grid, Trial
from harness.sweep.stage import path_configs, path_key


@dataclass(frozen=True)
class Plan:
    """`stages` by id, parents before children; `paths` by trial id, dense stage first."""

    trials: tuple[Trial, ...]
    stages: Mapping[str, StageConfig]
    paths: Mapping[str, tuple[str, ...]]


def make_plan(grid: Grid) -> Plan:
    """Return the plan of a grid. Equal stages are one.

    Most trials of a grid differ from another in the seed only, and most stages belong to several
    trials. So the configs of a path are made once for all seeds, and a stage gets its id once: the
    two dicts below hold 100,000 trials to seconds.
    """
    configs: dict[str, list[tuple[str, StageConfig]]] = {}  # by `path_key`; each with its JSON
    ids: dict[tuple[str | None, int, str], str] = {}  # by parent, seed and JSON of the rest
    stages: dict[str, StageConfig] = {}
    paths: dict[str, tuple[str, ...]] = {}
    for trial in grid.trials:
        key = path_key(trial.config)
        if key not in configs:
            configs[key] = [
                (config.model_dump_json(exclude={"parent", "seed"}), config)
                for config in path_configs(trial.config)
            ]
        parent: str | None = None
        path: list[str] = []
        for text, config in configs[key]:
            stage_key = (parent, trial.config.seed, text)
            if stage_key not in ids:
                changes = {"parent": parent, "seed": trial.config.seed}
                named = config.model_copy(update=changes)
                ids[stage_key] = stage_id(named)
                stages[ids[stage_key]] = named
            parent = ids[stage_key]
            path.append(parent)
        paths[trial.id] = tuple(path)
    order = sorted(stages, key=lambda stage: _depth(stages, stage))
    return Plan(tuple(grid.trials), {stage: stages[stage] for stage in order}, paths)


def part_of(plan: Plan, trials: Collection[str]) -> Plan:
    """Return the plan of only some trials of a plan, by their ids."""
    paths = {trial: path for trial, path in plan.paths.items() if trial in trials}
    needed = {stage for path in paths.values() for stage in path}
    stages = {stage: config for stage, config in plan.stages.items() if stage in needed}
    return Plan(tuple(trial for trial in plan.trials if trial.id in paths), stages, paths)


def _depth(stages: Mapping[str, StageConfig], stage: str) -> int:
    """Return how many ancestors a stage has."""
    return sum(1 for _ in lineage(stages, stage)) - 1


def lineage(stages: Mapping[str, StageConfig], stage: str) -> Iterator[str]:
    """Yield a stage and its ancestors, the dense stage last."""
    ancestor: str | None = stage
    while ancestor is not None:
        yield ancestor
        ancestor = stages[ancestor].parent


def todo(plan: Plan, states: Mapping[str, str], has_weights: Callable[[str], bool]) -> list[str]:
    """Return the stages to train, parents first.

    These are the stages whose state is in `TO_TRAIN`. A finished stage without weights is
    trained again when a child that needs training starts from it.
    """
    remaining = {stage for stage in plan.stages if states[stage] in TO_TRAIN}
    for stage in list(remaining):
        parent = plan.stages[stage].parent
        while parent is not None and parent not in remaining and states[parent] == "done":
            if has_weights(parent):
                break
            remaining.add(parent)
            parent = plan.stages[parent].parent
    return [stage for stage in plan.stages if stage in remaining]


def trees(plan: Plan, remaining: Collection[str]) -> list[list[str]]:
    """Return the `remaining` stages, parents first, grouped by the dense stage they start from."""
    roots: dict[str, str] = {}
    members: dict[str, list[str]] = {}
    for stage, config in plan.stages.items():
        roots[stage] = stage if config.parent is None else roots[config.parent]
        if stage in remaining:
            members.setdefault(roots[stage], []).append(stage)
    return list(members.values())


def stages_before_sharing(plan: Plan) -> int:
    """Return how many trainings the trials would take if they shared no stage."""
    return sum(len(path) for path in plan.paths.values())


def stream_key(config: StageConfig) -> tuple[object, ...]:
    """Return what stages must have in common for one stream of batches to feed them."""
    return config.dataset, config.seed, config.recipe.batch_size, config.recipe.epochs


Joins = Callable[[Sequence[str], str], bool]
"""Returns whether a stage may join a gang; for an empty gang, whether it may share a process."""


def grouped(
    stages: Iterable[str], key_of: Callable[[str], Hashable], joins: Joins
) -> list[list[str]]:
    """Return the stages in groups: each joins the last group of its key, or opens another."""
    open_groups: dict[Hashable, list[str]] = {}
    groups: list[list[str]] = []
    for stage in stages:
        group = open_groups.get(key_of(stage))
        if group is not None and joins([], stage) and joins(group, stage):
            group.append(stage)
            continue
        groups.append([stage])
        if joins([], stage):
            open_groups[key_of(stage)] = groups[-1]
    return groups


def gangs(plan: Plan, todo: Sequence[str], joins: Joins) -> list[list[str]]:
    """Return the stages `todo`, parents first, in groups that one stream of batches feeds.

    The stages of a gang share data, seed, batch size, epochs and their depth in the tree.
    """
    return grouped(
        todo, lambda stage: (_depth(plan.stages, stage), *stream_key(plan.stages[stage])), joins
    )
