"""The sparsities that iterative pruning passes through."""

from __future__ import annotations

from harness.errors import UserError
from harness.schema import CompressConfig

MOST_LEVELS = 200


def levels(sparsity: float, level_share: float) -> tuple[float, ...]:
    """Return the sparsity after each level; the last one is exactly `sparsity`.

    Each level removes `level_share` of the remaining weights, so level k is at
    1 - (1 - level_share)^k for every target, and trials of several sparsities share first levels.
    A target within a millionth of a level is that level. Sparsity 0 has no levels.

    Raises:
        UserError: a share that takes more than `MOST_LEVELS`.
    """
    reached: list[float] = []
    if sparsity <= 0.0:
        return ()
    while True:
        level = round(1.0 - (1.0 - level_share) ** (len(reached) + 1), 6)
        if level >= sparsity - 1e-6:
            return (*reached, sparsity)
        reached.append(level)
        if len(reached) == MOST_LEVELS:
            raise UserError(
                f"compress.level_share: removing {level_share:g} of the remaining weights at each "
                f"level takes more than {MOST_LEVELS} levels to sparsity {sparsity:g}: remove a "
                "greater share."
            )


def trial_levels(compress: CompressConfig) -> tuple[float, ...]:
    """Return the sparsities of a trial's levels.

    For a dense_long control these are the levels whose training budget it matches. Gradual pruning
    has none: it happens within one training. A list `compress.levels` serves all sparsities of a
    sweep: a trial takes those below its own sparsity, and then that.

    Raises:
        UserError: `compress.levels` is empty, or does not rise.
    """
    target = compress.dense_long or compress.sparsity
    if compress.pruning == "gradual" or target == 0.0:
        return ()
    if compress.pruning == "one_shot":
        return (target,)
    if compress.levels is None:
        return levels(target, compress.level_share)
    listed = compress.levels
    if not listed:
        raise UserError(
            "compress.levels: [] lists no level. Give the sparsities, null for geometric ones, or "
            "compress.pruning=one_shot for a single one."
        )
    for before, after in zip((0.0, *listed), listed, strict=False):
        if after <= before:
            raise UserError(
                f"compress.levels: {list(listed)} goes from sparsity {before:g} to {after:g}: list "
                "rising sparsities above 0, since what is left must fall at each level."
            )
    return (*(level for level in listed if level < target - 1e-6), target)
