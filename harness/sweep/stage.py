"""The path of a trial: its dense stage, then one prune-and-retrain level after the other.

A stage's config holds its parent's id and what changes its own numbers, and nothing about later
stages of the trial. So trials with equal first stages share them.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.augment.policy import with_magnitude
from harness.schema import (
    AugmentConfig,
    CompressConfig,
    Magnitude,
    PruneConfig,
    RecipeConfig,
    ScheduleConfig,
    StageAugment,
    StageConfig,
    StageSurplus,
    SurplusConfig,
    TrialConfig,
)
from harness.sweep import targets
from harness.sweep.levels import trial_levels
from harness.sweep.schedules import depends_on_seed, magnitudes


@dataclass(frozen=True)
class Step:
    """What one stage of a path does."""

    magnitude: Magnitude
    recipe: RecipeConfig
    prune: PruneConfig | None = None
    surplus: StageSurplus | None = None
    rewind_epoch: int | None = None


def steps(trial: TrialConfig) -> tuple[Step, ...]:
    """The steps of a trial's path, the dense stage first. Raises UserError."""
    compress, surplus = trial.compress, trial.surplus
    sparsities = trial_levels(compress)
    strengths = list(magnitudes(trial, sparsities))
    retrained = _retrained(trial.recipe, compress)
    # a dense trial keeps the early weights too, so that it is the stage that pruned ones begin with
    rewinds = compress.rewind == "weights" and surplus.form not in ("slice", "fuse")
    rewind_epoch = compress.rewind_epoch if rewinds and compress.rewind_epoch else None
    gradual = compress.pruning == "gradual" and compress.sparsity > 0.0
    if surplus.form == "prune_away":
        strengths[1:] = [surplus.weak] * len(sparsities)
    elif surplus.form == "weak_finish":
        strengths[0] = surplus.weak
    first = Step(
        strengths[0],
        trial.recipe,
        _prune(compress, compress.sparsity) if gradual else None,
        _surplus(surplus) if surplus.form in ("slice", "fuse") else None,
        rewind_epoch,
    )
    found = [first]
    for sparsity, strength in zip(sparsities, strengths[1:], strict=True):
        removed = _prune(compress, 0.0 if compress.dense_long is not None else sparsity)
        found.append(Step(strength, retrained, removed, rewind_epoch=rewind_epoch))
    if surplus.form == "weak_finish":
        last = found.pop()
        second = retrained.epochs // 2
        for strength, epochs, prune in (
            (last.magnitude, retrained.epochs - second, last.prune),
            (surplus.weak, second, _prune(compress, 0.0)),
        ):
            found.append(Step(strength, _with_epochs(retrained, epochs), prune))
    return tuple(found)


def path_configs(trial: TrialConfig) -> list[StageConfig]:
    """Return the configs of a trial's stages, dense stage first, each without its parent's id."""
    teacher = targets.resolved(trial) if trial.teacher.acts else None
    return [
        StageConfig(
            seed=trial.seed,
            dataset=trial.dataset,
            model=trial.model,
            augment=_stage_augment(trial.augment, step.magnitude),
            recipe=step.recipe,
            prune=step.prune,
            surplus=step.surplus,
            teacher=teacher,
            rewind_epoch=step.rewind_epoch,
        )
        for step in steps(trial)
    ]


def path_key(trial: TrialConfig) -> str:
    """Return a text that is equal for trials whose paths differ in nothing but the seed."""
    return trial.model_dump_json(exclude=None if depends_on_seed(trial.compress) else {"seed"})


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
    return PruneConfig(
        sparsity=sparsity,
        method=compress.method,
        scope=compress.scope,
        protect=compress.protect,
        rewind=compress.rewind,
        reestimate_batch_norm=compress.reestimate_batch_norm,
        gradual_end=compress.gradual_end if compress.pruning == "gradual" else None,
    )


def _surplus(surplus: SurplusConfig) -> StageSurplus:
    if surplus.form == "slice":
        return StageSurplus(form="slice", widths=surplus.widths, share=surplus.share)
    return StageSurplus(form="fuse", expand=surplus.expand)


def _retrained(recipe: RecipeConfig, compress: CompressConfig) -> RecipeConfig:
    """The recipe of a level: its length, and for fine-tuning a constant learning rate."""
    recipe = _with_epochs(recipe, compress.level_epochs or recipe.epochs)
    if compress.rewind != "fine_tuning" or compress.fine_tune_lr is None:
        return recipe
    optimizer = recipe.optimizer.model_copy(update={"lr": compress.fine_tune_lr})
    schedule = ScheduleConfig(name="constant")
    return recipe.model_copy(update={"optimizer": optimizer, "schedule": schedule})


def _with_epochs(recipe: RecipeConfig, epochs: int) -> RecipeConfig:
    return recipe.model_copy(update={"epochs": epochs})
