"""From a trial to its path of stages: dense, then one prune-and-retrain level after the other.

A stage's config holds what changes its own numbers and its parent's id, and nothing of the
trial's further path: trials that go further share their first stages.
"""

from __future__ import annotations

import functools
from typing import Any

from harness.augment.policy import with_magnitude
from harness.compress.levels import levels
from harness.compress.schedules import magnitudes
from harness.schema import (
    AugmentConfig,
    Magnitude,
    PruneConfig,
    RecipeConfig,
    StageAugment,
    StageConfig,
    TrialConfig,
)
from harness.store.identity import stage_id

Found = tuple[str, StageConfig]


def path(trial: TrialConfig, memo: dict[Any, Found] | None = None) -> list[Found]:
    """Ids and configs of a trial's stages, the dense one first.

    Trials of one plan pass one `memo`, so that a stage they share is built and named once.
    """
    compress = trial.compress
    control = compress.dense_long is not None
    sparsities = levels(compress.dense_long or compress.sparsity, compress.level_share)
    strengths = magnitudes(trial.augment, len(sparsities))
    level_recipe = _with_epochs(trial.recipe, compress.level_epochs or trial.recipe.epochs)
    found: list[Found] = []
    for number, strength in enumerate(strengths):
        parent = found[-1][0] if found else None
        recipe, prune = trial.recipe, None
        if number > 0:
            recipe = level_recipe
            prune = _prune(
                0.0 if control else sparsities[number - 1],
                compress.method,
                compress.scope,
                compress.protect,
                compress.rewind,
                compress.reestimate_batch_norm,
            )
        shared = (trial.dataset, trial.model, trial.augment, recipe, prune)
        key = (parent, trial.seed, strength, *map(id, shared))
        named = None if memo is None else memo.get(key)
        if named is None:
            config = StageConfig.model_construct(
                parent=parent,
                seed=trial.seed,
                dataset=trial.dataset,
                model=trial.model,
                augment=_augment(trial.augment, strength),
                recipe=recipe,
                prune=prune,
            )
            named = (stage_id(config), config)
            if memo is not None:
                memo[key] = named
        found.append(named)
    return found


# Equal parts are one object, so that their JSON is made once (`identity`).


@functools.cache
def _augment(augment: AugmentConfig, strength: Magnitude) -> StageAugment:
    return StageAugment(
        policy=with_magnitude(augment.policy, strength),
        crop_padding=augment.crop_padding,
        flip=augment.flip,
    )


@functools.cache
def _prune(
    sparsity: float,
    method: str,
    scope: str,
    protect: tuple[str, ...],
    rewind: str,
    reestimate_batch_norm: bool,
) -> PruneConfig:
    return PruneConfig(
        sparsity=sparsity,
        method=method,
        scope=scope,
        protect=protect,
        rewind=rewind,
        reestimate_batch_norm=reestimate_batch_norm,
    )


@functools.cache
def _with_epochs(recipe: RecipeConfig, epochs: int) -> RecipeConfig:
    return recipe.model_copy(update={"epochs": epochs})
