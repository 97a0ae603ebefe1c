"""From a trial to its path of stages: dense, then one prune-and-retrain level after the other.

A stage's config holds what changes its own numbers and its parent's id, and nothing of the
trial's further path: trials that go further share their first stages.
"""

from __future__ import annotations

import functools
from typing import Any

from harness.augment.policy import with_magnitude
from harness.compress.surplus import FORMS, Step
from harness.schema import (
    AugmentConfig,
    CompressConfig,
    Magnitude,
    Options,
    PruneConfig,
    RecipeConfig,
    ScheduleConfig,
    StageAugment,
    StageConfig,
    TrialConfig,
)
from harness.store.identity import stage_id
from harness.sweep import targets
from harness.sweep.levels import trial_levels
from harness.sweep.schedules import magnitudes

Found = tuple[str, StageConfig]


def steps(trial: TrialConfig) -> tuple[Step, ...]:
    """The steps of a trial's path, the dense stage first. Raises UserError."""
    compress = trial.compress
    sparsities = trial_levels(compress)
    strengths = list(magnitudes(trial, sparsities))
    retrained = _retrained(trial.recipe, compress)
    # a dense trial keeps the early weights too, so that it is the stage that pruned ones begin with
    rewind_epoch = (compress.rewind_epoch or None) if compress.rewind == "weights" else None
    gradual = compress.pruning == "gradual" and compress.sparsity > 0.0
    pruned = _prune(compress, compress.sparsity) if gradual else None
    found = [Step(strengths[0], trial.recipe, pruned, rewind_epoch=rewind_epoch)]
    for sparsity, strength in zip(sparsities, strengths[1:], strict=True):
        removed = _prune(compress, 0.0 if compress.dense_long is not None else sparsity)
        found.append(Step(strength, retrained, removed, rewind_epoch=rewind_epoch))
    return tuple(FORMS.get(trial.surplus.form).change_path(trial, found))


def path(trial: TrialConfig, memo: dict[Any, Any] | None = None) -> list[Found]:
    """Ids and configs of a trial's stages, the dense one first.

    Trials of one plan pass one `memo`, so that a stage they share is built and named once.
    """
    memo = {} if memo is None else memo
    parts = (trial.dataset, trial.model, trial.augment, trial.recipe, trial.compress, trial.surplus)
    shuffled = trial.seed if trial.compress.magnitude_schedule == "shuffled" else None
    known = (shuffled, *map(id, parts))
    if known not in memo:
        memo[known] = steps(trial)
    found: list[Found] = []
    for step in memo[known]:
        parent = found[-1][0] if found else None
        teacher = targets.resolved(trial) if trial.teacher.acts else None
        shared = (trial.dataset, trial.model, trial.augment, step.recipe, step.prune, step.surplus)
        key = (parent, trial.seed, step.magnitude, step.rewind_epoch, *map(id, (*shared, teacher)))
        named = memo.get(key)
        if named is None:
            config = StageConfig.model_construct(
                parent=parent,
                seed=trial.seed,
                dataset=trial.dataset,
                model=trial.model,
                augment=_augment(trial.augment, step.magnitude),
                recipe=step.recipe,
                prune=step.prune,
                surplus=step.surplus,
                teacher=teacher,
                rewind_epoch=step.rewind_epoch,
            )
            named = memo[key] = (stage_id(config), config)
        found.append(named)
    return found


# Equal parts are one object, so that their JSON is made once (`identity`).


@functools.cache
def _augment(augment: AugmentConfig, strength: Magnitude) -> StageAugment:
    return StageAugment(
        policy=with_magnitude(augment.policy, strength),
        crop_padding=augment.crop_padding,
        flip=augment.flip,
        erasing=augment.erasing,
        mixup=augment.mixup,
        cutmix=augment.cutmix,
    )


def _prune(compress: CompressConfig, sparsity: float) -> PruneConfig:
    end = compress.gradual_end if compress.pruning == "gradual" else None
    how = (compress.method, compress.scope, compress.protect, compress.rewind)
    return _made(sparsity, *how, compress.reestimate_batch_norm, end, compress.options)


@functools.cache
def _made(
    sparsity: float,
    method: str,
    scope: str,
    protect: tuple[str, ...],
    rewind: str,
    reestimate_batch_norm: bool,
    gradual_end: float | None,
    options: Options,
) -> PruneConfig:
    return PruneConfig(
        sparsity=sparsity,
        method=method,
        scope=scope,
        protect=protect,
        rewind=rewind,
        reestimate_batch_norm=reestimate_batch_norm,
        gradual_end=gradual_end,
        options=options,
    )


@functools.cache
def _retrained(recipe: RecipeConfig, compress: CompressConfig) -> RecipeConfig:
    """The recipe of a level: its length, and for fine-tuning a constant learning rate."""
    recipe = _with_epochs(recipe, compress.level_epochs or recipe.epochs)
    if compress.rewind != "fine_tuning" or compress.fine_tune_lr is None:
        return recipe
    optimizer = recipe.optimizer.model_copy(update={"lr": compress.fine_tune_lr})
    schedule = ScheduleConfig(name="constant")
    return recipe.model_copy(update={"optimizer": optimizer, "schedule": schedule})


@functools.cache
def _with_epochs(recipe: RecipeConfig, epochs: int) -> RecipeConfig:
    return recipe.model_copy(update={"epochs": epochs})
