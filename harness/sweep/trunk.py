"""Trunks: dense stages of several lengths that share their epochs at the constant learning rate.

Under `recipe.schedule.name=trunk` the rate is constant until the cool-down (Zhai et al. 2022,
Haegele et al. 2024). So trainings that differ only in their length are equal until the shortest
begins its cool-down. A plan cuts them into stages:

    epochs 0 ---- 8 ---- 16 ---- 32 ---- 64        trunk stages
                  \\      \\       \\       \\
                  10      20      40      80       the dense stages of 10, 20, 40 and 80 epochs

The cool-down takes 0.2 of the epochs by default: with it Haegele et al. reach the loss of cosine.
A trunk stage is a dense stage at a constant rate of that many epochs, and has its id. Each stage
continues the one before it, and ends in the same bits as if it had been trained in one go.
"""

from __future__ import annotations

from harness.schema import ScheduleConfig, StageConfig

TOLERANCE = 1e-3
"""Epochs by which a cool-down may miss a whole number: 0.142857 of 7 epochs are one epoch."""


def cooldown_epochs(cooldown: float, epochs: float) -> float:
    """Return how many of `epochs` are the cool-down: a share in (0, 1) of them.

    The number is whole where it is so within `TOLERANCE`.
    """
    length = cooldown * epochs
    return float(round(length)) if abs(length - round(length)) < TOLERANCE else length


def is_cut(config: StageConfig) -> bool:
    """Return whether a plan cuts the training of a dense stage into a trunk and a cool-down.

    Gradual pruning, graphs of surplus and growing images depend on the length of the whole
    training, so that trainings of two lengths are never equal. They are trained in one go.
    """
    depends_on_length = (
        config.prune is not None
        or config.surplus is not None
        or config.dataset.start_resolution is not None
    )
    return config.recipe.schedule.name == "trunk" and not depends_on_length


def trunk_epochs(config: StageConfig) -> float:
    """Return the epochs of a dense stage before its cool-down. Only a whole number can be cut."""
    schedule, epochs = config.recipe.schedule, config.recipe.epochs
    assert schedule.cooldown is not None
    return epochs - cooldown_epochs(schedule.cooldown, epochs)


def trunk_stage(config: StageConfig, epochs: int) -> StageConfig:
    """Return the first `epochs` of a dense stage's trunk as a stage: a constant-rate training."""
    warmup_epochs = config.recipe.schedule.warmup_epochs
    schedule = ScheduleConfig(name="constant", warmup_epochs=warmup_epochs)
    recipe = config.recipe.model_copy(update={"epochs": epochs, "schedule": schedule})
    rewind_epoch = config.rewind_epoch  # has no effect where it comes later
    if rewind_epoch is not None and rewind_epoch > epochs:
        rewind_epoch = None
    return config.model_copy(update={"recipe": recipe, "rewind_epoch": rewind_epoch})


def _is_whole(cooldown: float, epochs: int) -> bool:
    """Return whether a cool-down takes whole epochs, one or more, and leaves the trunk some."""
    length = cooldown_epochs(cooldown, epochs)
    return length.is_integer() and 1 <= length < epochs


def misfit(config: StageConfig) -> str | None:
    """Return why the cool-down of a dense stage cannot begin where an epoch ends, or None."""
    cooldown, epochs = config.recipe.schedule.cooldown, config.recipe.epochs
    if not is_cut(config) or cooldown is None or _is_whole(cooldown, epochs):
        return None
    lengths = [length for length in range(1, 2 * epochs + 100) if _is_whole(cooldown, length)]
    below = [str(length) for length in lengths if length < epochs][-1:]
    above = [str(length) for length in lengths if length > epochs][:1]
    remedies = [f"{' or '.join(below + above)} epochs"] if lengths else []
    if epochs > 1:
        whole = min(max(1, round(cooldown * epochs)), epochs - 1)
        remedies.append(f"recipe.schedule.cooldown={whole / epochs:.6g}")
    return (
        f"a cool-down of {cooldown:g} of {epochs} epochs takes {cooldown * epochs:g}, and it has "
        f"to begin where an epoch ends: give {', or '.join(remedies)}"
    )
