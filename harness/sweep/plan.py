"""The plan: every trial's path, the tree of stages that they share, and what is left to train."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from harness.schema import StageConfig
from harness.sweep.grid import Grid
from harness.sweep.stage import path
from harness.sweep.trial import Trial


@dataclass(frozen=True)
class Plan:
    """`stages` by id, parents before children; `paths` by trial id, dense stage first."""

    trials: tuple[Trial, ...]
    stages: Mapping[str, StageConfig]
    paths: Mapping[str, tuple[str, ...]]


def make_plan(grid: Grid) -> Plan:
    """Expand a grid into its stages; equal stages are one."""
    stages: dict[str, StageConfig] = {}
    paths: dict[str, tuple[str, ...]] = {}
    memo: dict[object, tuple[str, StageConfig]] = {}
    for trial in grid.trials:
        found = path(trial.config, memo)
        for stage, config in found:
            stages.setdefault(stage, config)
        paths[trial.id] = tuple(stage for stage, _ in found)
    order = sorted(stages, key=lambda stage: _depth(stages, stage))
    return Plan(tuple(grid.trials), {stage: stages[stage] for stage in order}, paths)


def _depth(stages: Mapping[str, StageConfig], stage: str) -> int:
    parent = stages[stage].parent
    return 0 if parent is None else 1 + _depth(stages, parent)


def todo(plan: Plan, states: Mapping[str, str], has_weights: Callable[[str], bool]) -> list[str]:
    """Stages to train, parents first: what is neither settled nor behind a stage that is.

    A finished stage whose weights are gone is trained again when a child needs to start from it.
    """
    left: set[str] = set()
    for stage in plan.stages:
        if states[stage] in ("waiting", "damaged", "running"):
            left.add(stage)
    for stage in list(left):
        parent = plan.stages[stage].parent
        while parent is not None and parent not in left and states[parent] == "done":
            if has_weights(parent):
                break
            left.add(parent)
            parent = plan.stages[parent].parent
    return [stage for stage in plan.stages if stage in left]


def trees(plan: Plan, left: Collection[str]) -> list[list[str]]:
    """The stages `left` by the dense stage that they descend from, parents first."""
    roots: dict[str, str] = {}
    found: dict[str, list[str]] = {}
    for stage, config in plan.stages.items():
        roots[stage] = stage if config.parent is None else roots[config.parent]
        if stage in left:
            found.setdefault(roots[stage], []).append(stage)
    return list(found.values())


def lineage(stages: Mapping[str, StageConfig], stage: str) -> Iterator[str]:
    """A stage and all that it descends from."""
    at: str | None = stage
    while at is not None:
        yield at
        at = stages[at].parent


def stages_before_sharing(plan: Plan) -> int:
    """How many trainings it would take without sharing."""
    return sum(len(found) for found in plan.paths.values())


def stream_key(config: StageConfig) -> tuple[object, ...]:
    """What stages have in common that one stream of batches can feed."""
    return config.dataset, config.seed, config.recipe.batch_size, config.recipe.epochs


Joins = Callable[[Sequence[str], str], bool]
"""Whether a stage may train beside those of a gang; beside none: whether it may have company."""


def gangs(plan: Plan, todo: Sequence[str], joins: Joins) -> list[list[str]]:
    """The stages `todo`, parents first, in groups that one stream of batches feeds.

    Members share data, seed, batch size and epochs, and their place in the tree.
    """
    open_gangs: dict[tuple[object, ...], list[str]] = {}
    found: list[list[str]] = []
    for stage in todo:
        key = (_depth(plan.stages, stage), *stream_key(plan.stages[stage]))
        gang = open_gangs.get(key)
        if not joins([], stage):
            found.append([stage])
        elif gang is None or not joins(gang, stage):
            open_gangs[key] = [stage]
            found.append(open_gangs[key])
        else:
            gang.append(stage)
    return found
