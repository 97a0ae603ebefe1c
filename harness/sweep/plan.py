"""The plan of a grid: the path of every trial, and the tree of stages that the trials share."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from harness.schema import Continues, StageConfig, TrialConfig
from harness.states import TO_TRAIN
from harness.store.identity import stage_id
from harness.sweep.grid import Grid, Trial
from harness.sweep.stage import path_configs, path_key
from harness.sweep.trunk import is_cut, trunk_epochs, trunk_stage


@dataclass(frozen=True)
class Plan:
    """`stages` by id, parents before children; `paths` by trial id, dense stage first.

    The dense stage of a trunk follows the trunk stages that lead to it.
    """

    trials: tuple[Trial, ...]
    stages: Mapping[str, StageConfig]
    paths: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class _Path:
    """What trials have in common that differ only in the seed: their stages, without ids.

    `trunk` is a text that is equal for all lengths of one trunk, which ends after `trunk_end`
    epochs for these trials. It is None for a dense stage in one go.
    """

    stages: tuple[tuple[str, StageConfig], ...]  # each with its JSON
    trunk: str | None = None
    trunk_end: int = 0

    @classmethod
    def of(cls, trial: TrialConfig) -> _Path:
        """Return the path of a trial."""
        configs = path_configs(trial)
        stages = tuple((_text(config), config) for config in configs)
        dense = configs[0]
        if not is_cut(dense):
            return cls(stages)
        any_length = trunk_stage(dense, dense.recipe.epochs)
        return cls(stages, _text(any_length, {"recipe": {"epochs"}}), int(trunk_epochs(dense)))


def _text(config: StageConfig, exclude: Mapping[str, Any] = MappingProxyType({})) -> str:
    """Return the JSON of a stage without its place in the plan: parent and seed."""
    return config.model_dump_json(exclude={"parent": True, "seed": True, **exclude})


class _Stages:
    """Collects the stages of a plan; a stage gets its id once, which holds large plans to seconds.

    `configs`: by id; `trunks`: the trunk stages of each length, each with its JSON.
    """

    def __init__(self) -> None:
        self.configs: dict[str, StageConfig] = {}
        self.ids: dict[tuple[str | None, int, str], str] = {}  # by parent, seed and JSON
        self.trunks: dict[tuple[str, int], tuple[str, StageConfig]] = {}

    def add(
        self,
        text: str,
        config: StageConfig,
        seed: int,
        parent: str | None = None,
        continues: Continues | None = None,
    ) -> str:
        """Add a stage unless it is there, and return its id. `text` is its JSON, as of `_text`."""
        key = (parent, seed, text)
        if key not in self.ids:
            named = config.model_copy(update={"parent": parent, "seed": seed})
            self.ids[key] = stage_id(named)
            self.configs[self.ids[key]] = named
        stage = self.ids[key]
        # another trial may have the same stage in one go: continuing is cheaper
        if continues is not None and self.configs[stage].continues is None:
            changes = {"continues": continues}
            self.configs[stage] = self.configs[stage].model_copy(update=changes)
        return stage

    def add_trunk(self, path: _Path, ends: Iterable[int], seed: int) -> list[str]:
        """Add the trunk stages that lead to the cool-down of a path, and return their ids."""
        trunk: list[str] = []
        continues: Continues | None = None
        assert path.trunk is not None
        for epochs in ends:
            key = path.trunk, epochs
            if key not in self.trunks:
                config = trunk_stage(path.stages[0][1], epochs)
                self.trunks[key] = _text(config), config
            trunk.append(self.add(*self.trunks[key], seed, continues=continues))
            continues = Continues(stage=trunk[-1], epoch=epochs)
        return trunk


def make_plan(grid: Grid) -> Plan:
    """Return the plan of a grid. Equal stages are one.

    Most trials of a grid differ from another in the seed only, and most stages belong to several
    trials. So the configs of a path are made once for all seeds: 100,000 trials take seconds.
    """
    by_key: dict[str, _Path] = {}
    paths: list[_Path] = []  # of each trial
    ends: dict[tuple[str | None, int], set[int]] = {}  # where cool-downs begin: by trunk and seed
    for trial in grid.trials:
        key = path_key(trial.config)
        if key not in by_key:
            by_key[key] = _Path.of(trial.config)
        paths.append(by_key[key])
        ends.setdefault((paths[-1].trunk, trial.config.seed), set()).add(paths[-1].trunk_end)
    stages = _Stages()
    ids: dict[str, tuple[str, ...]] = {}
    for trial, path in zip(grid.trials, paths, strict=True):
        seed = trial.config.seed
        continues = parent = None
        if path.trunk is not None:
            cuts = [end for end in sorted(ends[path.trunk, seed]) if end <= path.trunk_end]
            trunk = stages.add_trunk(path, cuts, seed)
            continues = Continues(stage=trunk[-1], epoch=path.trunk_end)
        own: list[str] = []
        for text, config in path.stages:
            parent = stages.add(text, config, seed, parent, continues if not own else None)
            own.append(parent)
        ids[trial.id] = tuple(own)
    for trial_id, (dense, *levels) in ids.items():  # when all stages know what they continue
        ids[trial_id] = (*reversed(tuple(lineage(stages.configs, dense))), *levels)
    order = sorted(stages.configs, key=lambda stage: _depth(stages.configs, stage))
    return Plan(tuple(grid.trials), {stage: stages.configs[stage] for stage in order}, ids)


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
    """Yield a stage and those that have to be finished before it, the first of them last."""
    ancestor: str | None = stage
    while ancestor is not None:
        yield ancestor
        ancestor = stages[ancestor].origin


def configs_of_job(
    stages: Mapping[str, StageConfig], to_train: Iterable[str]
) -> dict[str, StageConfig]:
    """Return the configs that a job has to know which trains the stages `to_train`.

    These are the stages, those that have to be finished before them, and the trunk stages and
    cool-downs that continue any of these, now or in a later launch: for them the job keeps the last
    checkpoint.
    """
    known = {ancestor for stage in to_train for ancestor in lineage(stages, stage)}
    return {
        stage: config
        for stage, config in stages.items()
        if stage in known or (config.continues is not None and config.origin in known)
    }


def without_trunk(plan: Plan, path: Sequence[str]) -> tuple[str, ...]:
    """Return the dense stage of a path and its levels, without the trunk that leads to it.

    The epochs and counts of the dense stage include those of the trunk.
    """
    dense = max(place for place, s in enumerate(path) if plan.stages[s].parent is None)
    return tuple(path[dense:])


def dense_stage(plan: Plan, stage: str) -> str:
    """Return the dense stage that `stage` descends from: itself, if it does not have a parent."""
    return next(s for s in lineage(plan.stages, stage) if plan.stages[s].parent is None)


def todo(
    plan: Plan,
    states: Mapping[str, str],
    has_start: Callable[[StageConfig], bool],
    selected: Collection[str] | None = None,
) -> list[str]:
    """Return the stages to train of those that are `selected`, parents first; None: of all.

    These are the stages whose state is in `TO_TRAIN`. A finished stage is trained again when a
    stage that needs training starts from it, and what that needs was not kept (`has_start`). A
    stage that is only the trunk of trials is left out if nobody has begun it and the stages that
    would continue it are finished.
    """
    remaining: set[str] = set()
    continued: set[str] = set()
    own = {stage for path in plan.paths.values() for stage in without_trunk(plan, path)}
    for stage in reversed(tuple(plan.stages)):  # children first
        config = plan.stages[stage]
        is_wanted = selected is None or stage in selected
        is_needed = stage in own or stage in continued
        is_idle = not is_needed and states[stage] == "waiting"
        if states[stage] in TO_TRAIN and is_wanted and not is_idle:
            remaining.add(stage)
            if config.continues is not None:
                continued.add(config.continues.stage)
    for stage in list(remaining):
        child, origin = plan.stages[stage], plan.stages[stage].origin
        while origin is not None and origin not in remaining:
            is_done = states[origin] == "done"
            if (is_done and has_start(child)) or not (is_done or states[origin] in TO_TRAIN):
                break
            remaining.add(origin)
            child, origin = plan.stages[origin], plan.stages[origin].origin
    return [stage for stage in plan.stages if stage in remaining]


def trees(plan: Plan, remaining: Collection[str]) -> list[list[str]]:
    """Return the `remaining` stages, parents first, grouped by the first stage of their lineage."""
    roots: dict[str, str] = {}
    members: dict[str, list[str]] = {}
    for stage, config in plan.stages.items():
        roots[stage] = stage if config.origin is None else roots[config.origin]
        if stage in remaining:
            members.setdefault(roots[stage], []).append(stage)
    return list(members.values())


def stages_before_sharing(plan: Plan) -> int:
    """Return how many trainings the trials would take if they shared no stage."""
    return sum(len(without_trunk(plan, path)) for path in plan.paths.values())


def stream_key(config: StageConfig) -> tuple[object, ...]:
    """Return what stages must have in common for one stream of batches to feed them."""
    recipe = config.recipe
    return config.dataset, config.seed, recipe.batch_size, config.begin_epoch, recipe.epochs


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

    The stages of a gang share data, seed, batch size, first and last epoch, and their depth in the
    tree.
    """
    return grouped(
        todo, lambda stage: (_depth(plan.stages, stage), *stream_key(plan.stages[stage])), joins
    )
