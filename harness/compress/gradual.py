"""Gradual pruning: sparsity grows within one training (Zhu and Gupta 2017, arXiv 1710.01878)."""

from __future__ import annotations

UPDATES = 100
"""Number of evenly spaced updates of the masks. With fewer steps, the masks change each step."""


def sparsity_at(step: int, target: float, end: int) -> float:
    """Return the sparsity target * (1 - (1 - step / end)^3), and `target` from step `end` on."""
    if step >= end:
        return target
    return float(target * (1.0 - (1.0 - step / end) ** 3))


def is_due(step: int, end: int) -> bool:
    """Return whether the masks change after `step` steps.

    The result depends on the arguments only, so a resumed training changes its masks at the same
    steps.
    """
    return step == end or (step < end and step % max(1, end // UPDATES) == 0)


def end_step(total_steps: int, share: float) -> int:
    """Return the step after which the target sparsity is reached, at `share` of the steps.

    In a training of two or more steps, it is before the last one, so that at least one step trains
    with the final masks.
    """
    return max(1, min(round(share * total_steps), total_steps - 1))
