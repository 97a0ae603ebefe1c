"""Gradual pruning within one training (Zhu and Gupta 2017, arXiv 1710.01878)."""

from __future__ import annotations

UPDATES = 100  # of the masks, evenly over the time that pruning takes; fewer steps: one a step


def sparsity_at(step: int, target: float, end: int) -> float:
    """s(t) = target * (1 - (1 - t / end)^3) after `step` steps; exactly `target` from `end` on."""
    if step >= end:
        return target
    return float(target * (1.0 - (1.0 - step / end) ** 3))


def is_due(step: int, end: int) -> bool:
    """Whether the masks change after `step` steps: a pure function, so resuming repeats it."""
    return step == end or (step < end and step % max(1, end // UPDATES) == 0)


def end_step(total_steps: int, share: float) -> int:
    """The step at which the target is reached, at least one before the last where there is one."""
    return max(1, min(round(share * total_steps), total_steps - 1))
