"""Training: the loop over batches, stages, engines, checkpoints, evaluation and teachers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.lazy import lazy_exports

if TYPE_CHECKING:
    from harness.train.distributed import World, connected
    from harness.train.gang import Member, Outcome
    from harness.train.loop import train_gang
    from harness.train.step_timing import measure_steps_in_new_process

__all__ = [
    "Member", "Outcome", "World", "connected", "measure_steps_in_new_process", "train_gang",
]  # fmt: skip
__getattr__ = lazy_exports(
    __name__,
    {
        "distributed": ("World", "connected"),
        "gang": ("Member", "Outcome"),
        "loop": ("train_gang",),
        "step_timing": ("measure_steps_in_new_process",),
    },
)
