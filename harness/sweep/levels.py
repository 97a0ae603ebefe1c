"""The sparsities that pruning passes through."""

from __future__ import annotations

from harness.errors import UserError
from harness.schema import CompressConfig

MOST_LEVELS = 200


def levels(sparsity: float, level_share: float) -> tuple[float, ...]:
    """Sparsity after each level, last one exactly `sparsity`; none for sparsity 0.

    Each level removes `level_share` of the weights that are left, so level k is at
    1 - (1 - level_share)^k whatever the target: sparser trials share their first levels.
    A target within a millionth of a level is that level.

    Raises:
        UserError: a share that needs more than `MOST_LEVELS`.
    """
    found: list[float] = []
    if sparsity <= 0.0:
        return ()
    while True:
        level = round(1.0 - (1.0 - level_share) ** (len(found) + 1), 6)
        if level >= sparsity - 1e-6:
            return (*found, sparsity)
        found.append(level)
        if len(found) == MOST_LEVELS:
            raise UserError(
                f"compress.level_share: {level_share:g} of what is left at each level takes more "
                f"than {MOST_LEVELS} levels to sparsity {sparsity:g}; remove a greater share."
            )


def trial_levels(compress: CompressConfig) -> tuple[float, ...]:
    """Sparsities of a trial's levels; of a dense-long control, those that it stands beside.

    Gradual pruning has none: it happens within one training. Of `compress.levels` those below the
    trial's sparsity, and then that one: a list serves all sparsities of a sweep.

    Raises:
        UserError: `compress.levels` in which what is left does not fall from level to level.
    """
    target = compress.dense_long or compress.sparsity
    if compress.pruning == "gradual" or target == 0.0:
        return ()
    if compress.pruning == "one_shot":
        return (target,)
    if compress.levels is None:
        return levels(target, compress.level_share)
    given = compress.levels
    if not given:
        raise UserError(
            "compress.levels: [] lists no level: give the sparsities, null for geometric ones, or "
            "compress.pruning=one_shot for a single one."
        )
    for before, after in zip((0.0, *given), given, strict=False):
        if after <= before:
            raise UserError(
                f"compress.levels: {list(given)} goes from sparsity {before:g} to {after:g}; what "
                "is left must fall from each level to the next, so list rising sparsities above 0."
            )
    return (*(level for level in given if level < target - 1e-6), target)
