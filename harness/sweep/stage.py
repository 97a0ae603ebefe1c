"""The path of a trial: its dense stage, then one prune-and-retrain level after the other.

A stage's config holds its parent's id and what changes its own numbers, and nothing about later
stages of the trial. So trials with equal first stages share them.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TypeVar

from harness.augment.policy import with_magnitude
from harness.compress.surplus import FORMS, Step
from harness.schema import (
    AugmentConfig,
    CompressConfig,
    DatasetConfig,
    Frozen,
    Magnitude,
    PruneConfig,
    RecipeConfig,
    ScheduleConfig,
    StageAugment,
    StageConfig,
    TeacherConfig,
    TrialConfig,
)
from harness.sweep.levels import trial_levels
from harness.sweep.schedules import depends_on_seed, magnitudes
from harness.sweep.tables import with_target

Config = TypeVar("Config", bound=Frozen)
IDLE = {
    "sgd": ("betas",),
    "adamw": ("momentum", "nesterov"),
    "cosine": ("milestones", "gamma", "cooldown"),
    "step": ("final_share", "cooldown"),
    "constant": ("milestones", "gamma", "final_share", "cooldown"),
    "trunk": ("milestones", "gamma", "final_share"),
}
"""Keys without an effect, by the name of the optimizer or the schedule."""


def steps(trial: TrialConfig) -> tuple[Step, ...]:
    """Return the steps of a trial's path, the dense stage first. Raises UserError."""
    compress = trial.compress
    sparsities = trial_levels(compress)
    dense_magnitude, *level_magnitudes = magnitudes(trial, sparsities)
    level_recipe = _retrained(trial.recipe, compress)
    # A dense trial keeps the early weights too, so that pruned trials can share its stage.
    rewind_epoch = (compress.rewind_epoch or None) if compress.rewind == "weights" else None
    gradual = compress.pruning == "gradual" and compress.sparsity > 0.0
    prune = _prune(compress, compress.sparsity) if gradual else None
    path = [Step(dense_magnitude, trial.recipe, prune, rewind_epoch=rewind_epoch)]
    for sparsity, magnitude in zip(sparsities, level_magnitudes, strict=True):
        prune = _prune(compress, 0.0 if compress.dense_long is not None else sparsity)
        path.append(Step(magnitude, level_recipe, prune, rewind_epoch=rewind_epoch))
    return tuple(FORMS.get(trial.surplus.form).change_path(trial, path))


def path_configs(trial: TrialConfig) -> list[StageConfig]:
    """Return the configs of a trial's stages, dense stage first, each without its parent's id.

    Keys without an effect have their defaults, so that their values do not make another stage.
    """
    teacher = _teacher(with_target(trial)) if trial.teacher.acts else None
    return [
        StageConfig(
            seed=trial.seed,
            dataset=_dataset(trial.dataset),
            model=trial.model,
            augment=_stage_augment(trial.augment, step.magnitude),
            recipe=_recipe(step.recipe),
            prune=step.prune,
            surplus=step.surplus,
            teacher=teacher,
            rewind_epoch=step.rewind_epoch,
        )
        for step in steps(trial)
    ]


def path_key(trial: TrialConfig) -> str:
    """Return a text that is equal for two trials if their paths differ only in the seed."""
    return trial.model_dump_json(exclude=None if depends_on_seed(trial.compress) else {"seed"})


def _with_defaults(config: Config, keys: Collection[str]) -> Config:
    """Return a config with the defaults of `keys`."""
    fields = type(config).model_fields
    return config.model_copy(update={key: fields[key].default for key in keys})


def _dataset(dataset: DatasetConfig) -> DatasetConfig:
    return _with_defaults(dataset, ["ramp"] if dataset.start_resolution is None else [])


def _recipe(recipe: RecipeConfig) -> RecipeConfig:
    optimizer, schedule = recipe.optimizer, recipe.schedule
    idle = ["decay_norm_and_bias"] if optimizer.weight_decay == 0.0 else []
    # the order of the milestones does not matter, only how many are passed
    ordered = schedule.model_copy(update={"milestones": tuple(sorted(schedule.milestones))})
    update = {
        "optimizer": _with_defaults(optimizer, [*IDLE[optimizer.name], *idle]),
        "schedule": _with_defaults(ordered, IDLE[schedule.name]),
    }
    return recipe.model_copy(update=update)


def _teacher(teacher: TeacherConfig) -> TeacherConfig:
    idle = ["weight"] if teacher.labels == "true" else []
    return _with_defaults(teacher, [*idle, "beyond"] if teacher.cap is None else idle)


def _stage_augment(augment: AugmentConfig, strength: Magnitude) -> StageAugment:
    return StageAugment(
        policy=with_magnitude(augment.policy, strength),
        crop_padding=augment.crop_padding,
        flip=augment.flip,
        erasing=augment.erasing,
        mixup=augment.mixup,
        cutmix=augment.cutmix,
    )


def _prune(compress: CompressConfig, sparsity: float) -> PruneConfig:
    if sparsity == 0.0:  # a level of a dense control, whose result lists what is protected
        compress = CompressConfig(protect=compress.protect)
    is_gradual = compress.pruning == "gradual"
    return PruneConfig(
        sparsity=sparsity,
        method=compress.method,
        scope=compress.scope,
        protect=tuple(sorted(set(compress.protect))),
        rewind=compress.rewind,
        reestimate_batch_norm=compress.reestimate_batch_norm or is_gradual,
        gradual_end=compress.gradual_end if is_gradual else None,
        options=compress.options,
    )


def _retrained(recipe: RecipeConfig, compress: CompressConfig) -> RecipeConfig:
    """Return the recipe of a level: its own length and, for fine-tuning, a constant rate."""
    epochs = compress.level_epochs or recipe.epochs
    recipe = recipe.model_copy(update={"epochs": epochs})
    if compress.rewind != "fine_tuning" or compress.fine_tune_lr is None:
        return recipe
    optimizer = recipe.optimizer.model_copy(update={"lr": compress.fine_tune_lr})
    schedule = ScheduleConfig(name="constant")
    return recipe.model_copy(update={"optimizer": optimizer, "schedule": schedule})
