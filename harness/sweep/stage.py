"""From a trial to its path of stages: dense, then one prune-and-retrain level after the other.

A stage's config holds what changes its own numbers and its parent's id, and nothing of the
trial's further path: trials that go further share their first stages.
"""

from __future__ import annotations

from collections.abc import Callable

from harness.augment.policy import with_magnitude
from harness.compress.levels import levels
from harness.compress.schedules import magnitudes
from harness.schema import Magnitude, PruneConfig, StageAugment, StageConfig, TrialConfig
from harness.store.identity import stage_id


def path(
    trial: TrialConfig, name: Callable[[StageConfig], str] = stage_id
) -> list[tuple[str, StageConfig]]:
    """Ids and configs of a trial's stages, the dense one first. `name` may be a cached naming."""
    compress = trial.compress
    control = compress.dense_long is not None
    sparsities = levels(compress.dense_long or compress.sparsity, compress.level_share)
    strengths = magnitudes(trial.augment, len(sparsities))

    def stage(parent: str | None, strength: Magnitude, prune: PruneConfig | None) -> StageConfig:
        recipe = trial.recipe
        if prune is not None and compress.level_epochs is not None:
            recipe = recipe.model_copy(update={"epochs": compress.level_epochs})
        return StageConfig.model_construct(
            parent=parent,
            seed=trial.seed,
            dataset=trial.dataset,
            model=trial.model,
            augment=StageAugment(
                policy=with_magnitude(trial.augment.policy, strength),
                crop_padding=trial.augment.crop_padding,
                flip=trial.augment.flip,
            ),
            recipe=recipe,
            prune=prune,
        )

    config = stage(None, strengths[0], None)
    found = [(name(config), config)]
    for sparsity, strength in zip(sparsities, strengths[1:], strict=True):
        prune = PruneConfig(
            sparsity=0.0 if control else sparsity,
            method=compress.method,
            scope=compress.scope,
            protect=compress.protect,
            rewind=compress.rewind,
            reestimate_batch_norm=compress.reestimate_batch_norm,
        )
        config = stage(found[-1][0], strength, prune)
        found.append((name(config), config))
    return found
