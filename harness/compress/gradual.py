"""Gradual pruning: sparsity grows within one training (Zhu and Gupta 2017, arXiv 1710.01878)."""

from __future__ import annotations

UPDATES = 100  # of the masks, evenly spaced up to the last one; with fewer steps, one each step


def sparsity_at(step: int, target: float, end: int) -> float:
    """Return target * (1 - (1 - step / end)^3); exactly `target` from step `end` on."""
    if step >= end:
        return target
    return float(target * (1.0 - (1.0 - step / end) ** 3))


def is_due(step: int, end: int) -> bool:
    """Return whether the masks change after `step` steps.

    It depends on the arguments alone, so a resumed training repeats it.
    """
    return step == end or (step < end and step % max(1, end // UPDATES) == 0)


def end_step(total_steps: int, share: float) -> int:
    """Return the step after which the target is reached.

    It is before the last step if there is more than one, so that one trains with the last masks.
    """
    return max(1, min(round(share * total_steps), total_steps - 1))
