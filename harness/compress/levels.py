"""The sparsities that iterative pruning passes through."""

from __future__ import annotations


def levels(sparsity: float, level_share: float) -> tuple[float, ...]:
    """Sparsity after each level, last one exactly `sparsity`; none for sparsity 0.

    Each level removes `level_share` of the weights that are left, so level k is at
    1 - (1 - level_share)^k whatever the target: sparser trials share their first levels.
    A target within a millionth of a level is that level.
    """
    found: list[float] = []
    if sparsity <= 0.0:
        return ()
    while True:
        level = round(1.0 - (1.0 - level_share) ** (len(found) + 1), 6)
        if level >= sparsity - 1e-6:
            return (*found, sparsity)
        found.append(level)
