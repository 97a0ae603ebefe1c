"""A parsed command line: what to train, how, and where."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from harness.arguments import command_line
from harness.cluster_schema import ClusterConfig
from harness.run_schema import RunConfig
from harness.schema import StageConfig, TrialConfig
from harness.sweep.grid import Grid
from harness.sweep.jobs import resources_for
from harness.sweep.plan import Plan
from harness.sweep.settle import SettleConfig

JobSettings = tuple[ClusterConfig, RunConfig]


@dataclass(frozen=True)
class Launch:
    """A parsed command line; `options` has the values of the options of the command itself."""

    grid: Grid
    run: RunConfig
    cluster: ClusterConfig
    store: Path
    options: Mapping[str, Any] = field(default_factory=dict)
    resolved: Mapping[str, Any] = field(default_factory=dict)  # the composed config, plain
    settle: SettleConfig | None = None  # the rule of rounds; None: the full grid is trained
    evaluate: tuple[str, ...] = ()  # targets that the networks of trials are evaluated on
    words: tuple[str, ...] = ()  # the command line, without the options of the command itself

    def command(self, module: str, *changes: str) -> str:
        """Return a command on the same sweep, as it can be pasted into a shell.

        `changes` are words such as `run.device=cpu`; they replace words of the same key.
        """
        return command_line(module, self.words, *changes)

    def targets_of(self, plan: Plan, stages: Iterable[str]) -> dict[str, tuple[str, ...]]:
        """Return what each of these stages is evaluated on, if it is the last one of a trial."""
        shown = {path[-1] for path in plan.paths.values()} if self.evaluate else set()
        return {stage: self.evaluate for stage in stages if stage in shown}

    def job_settings(self, config: TrialConfig | StageConfig) -> JobSettings:
        """Return profile and run settings of the jobs of a trial or of a dense stage.

        A resource rule for its size has been applied; the conditions of the rules must be valid.
        """
        recipe = config.recipe
        size = config.dataset.name, config.model, recipe.batch_size, recipe.epochs
        if size not in self._settings:
            self._settings[size] = resources_for(config, self.cluster, self.run)
        return self._settings[size]

    @cached_property
    def _settings(self) -> dict[tuple[object, ...], JobSettings]:
        """The settings by size: a grid of 100,000 trials has few sizes."""
        return {}

    @cached_property
    def examples(self) -> tuple[TrialConfig, ...]:
        """One trial of each combination of values that decides how batches go to the ranks."""
        examples: dict[tuple[object, ...], TrialConfig] = {}
        for trial in self.grid.trials:
            config = trial.config
            recipe, augment = config.recipe, config.augment
            size = config.dataset.name, config.model, recipe.batch_size, recipe.epochs
            mixes = bool(augment.mixup or augment.cutmix)
            examples.setdefault((*size, recipe.sync_bn, mixes), config)
        return tuple(examples.values())
