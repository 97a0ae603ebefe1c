"""Checks what the models of a config cannot see by themselves.

Each check returns mistakes: the key path of a value, and a sentence about it. `check_sections` and
`check_trial` look at trials while the grid is expanded; `check_run` and `check_teachers` look at
the expanded grid.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from harness.cluster_schema import ClusterConfig
from harness.errors import UserError
from harness.schema import (
    AugmentConfig,
    DatasetConfig,
    ModelConfig,
    RecipeConfig,
    RunConfig,
    TrialConfig,
)
from harness.sweep import check as compression
from harness.sweep import teachers
from harness.sweep.grid import Grid
from harness.sweep.jobs import RULE_NAMES
from harness.sweep.mistakes import Mistake
from harness.sweep.stage import steps
from harness.sweep.where import parse


def check_sections(sections: Mapping[str, Any]) -> list[Mistake]:
    """Return unknown data sets, families and policies, and sizes that do not fit together.

    `sections` maps top-level keys of a trial to their models; sections that are not valid are
    absent.
    """
    dataset: DatasetConfig | None = sections.get("dataset")
    model: ModelConfig | None = sections.get("model")
    augment: AugmentConfig | None = sections.get("augment")
    recipe: RecipeConfig | None = sections.get("recipe")
    return [
        *_check_dataset_and_model(dataset, model),
        *(_check_augment(augment) if augment else ()),
        *(_check_recipe(recipe, augment) if recipe else ()),
        *(_check_batch(recipe, dataset) if recipe and dataset else ()),
    ]


def _check_dataset_and_model(
    dataset: DatasetConfig | None, model: ModelConfig | None
) -> Iterator[Mistake]:
    from harness.data.catalog import CATALOG, misfits
    from harness.models import registry

    info = CATALOG.get(dataset.name) if dataset else None
    side = (dataset.resolution if dataset else None) or (info.resolution if info else None)
    sentences = [("dataset", sentence) for sentence in misfits(dataset)] if dataset else []
    if model:
        sentences += [("model", sentence) for sentence in registry.check(model, side)]
    for section, sentence in sentences:
        key, _, rest = sentence.partition(": ")
        names_its_key = key.startswith(f"{section}.")
        yield (key, rest) if names_its_key else (section, sentence)
    images_grow = dataset is not None and dataset.start_resolution is not None
    if images_grow and model and registry.takes_one_size(model.family):
        sentence = f"{model.family} learns a position for each patch of images of one size"
        yield "dataset.start_resolution", f"{sentence}: leave it out."


def _check_augment(augment: AugmentConfig) -> Iterator[Mistake]:
    from harness.augment.policy import parse_policy, with_magnitude

    try:
        parse_policy(with_magnitude(augment.policy, augment.magnitude))
    except UserError as error:
        yield "augment.policy", str(error)


def _check_recipe(recipe: RecipeConfig, augment: AugmentConfig | None) -> Iterator[Mistake]:
    if recipe.optimizer.nesterov and not recipe.optimizer.momentum:
        yield "recipe.optimizer.nesterov", "needs a momentum above 0"
    if augment and (augment.mixup or augment.cutmix) and recipe.batch_size % 2:
        sentence = f"{recipe.batch_size} is odd, and mixup and cutmix pair neighbours"
        yield "recipe.batch_size", f"{sentence}: make it even"


def _check_batch(recipe: RecipeConfig, dataset: DatasetConfig) -> Iterator[Mistake]:
    from harness.data.catalog import CATALOG

    info = CATALOG.get(dataset.name)
    if info is None:
        return
    images = dataset.train_size or info.train_size - dataset.validation_size
    if 0 < images < recipe.batch_size:
        sentence = f"{recipe.batch_size} is more than the {images} training images"
        yield "recipe.batch_size", f"{sentence}: at least one batch must be full"


def check_trial(config: TrialConfig) -> list[Mistake]:
    """Return what does not fit together in a trial: compression, surplus, teacher, lengths."""
    if mistakes := compression.misfits(config):
        return mistakes
    for step in steps(config):
        warmup, epochs = step.recipe.schedule.warmup_epochs, step.recipe.epochs
        if warmup > epochs:
            sentence = f"{warmup:g} epochs are more than a stage of {epochs} epochs has"
            return [("recipe.schedule.warmup_epochs", f"{sentence}: make the warm-up shorter")]
    return []


def check_run(run: RunConfig, cluster: ClusterConfig, grid: Grid) -> Iterator[Mistake]:
    """Yield what does not fit together in how the trials of a grid are run."""
    for number, rule in enumerate(cluster.resources):
        try:
            parse(rule.where, RULE_NAMES)
        except UserError as error:
            yield f"cluster.resources[{number}].where", str(error)
    if run.zero_stage and run.engine != "deepspeed":
        sentence = f"{run.zero_stage} needs run.engine=deepspeed"
        yield "run.zero_stage", f"{sentence}: set run.zero_stage=0, or that engine"
    if any(rule.processes for rule in cluster.resources):
        return  # the number of processes differs between sizes; the loader checks each of them
    for size in sorted({trial.config.recipe.batch_size for trial in grid.trials}):
        if size % run.processes:
            yield (
                "recipe.batch_size",
                f"{size} cannot be shared equally by run.processes={run.processes}: make it a "
                f"multiple of {run.processes}",
            )


def check_teachers(grid: Grid, store: Path, trains: bool) -> Iterator[Mistake]:
    """Yield teachers that do nothing and, if `trains`, teachers that cannot be used."""
    used = {trial.config.teacher for trial in grid.trials}
    if any(teacher.name for teacher in used) and not any(teacher.acts for teacher in used):
        sentence = "it does nothing: set teacher.labels, target with candidates, or cap"
        yield "teacher", sentence
    if not trains:
        return
    configs = [trial.config for trial in grid.trials if trial.config.teacher.acts]
    pairs = {(str(config.teacher.name), config.dataset) for config in configs}
    for name, dataset in sorted(pairs, key=str):
        if problem := teachers.misfit(name, store, dataset):
            yield "teacher.name", problem
