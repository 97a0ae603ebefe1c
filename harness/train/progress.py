"""How far a stage's training is, and what it has cost so far."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

from harness.train.distributed import World


@dataclass
class Progress:
    """The part of a checkpoint that is neither the engine's state nor the masks.

    loss_sum: sum of this rank's losses since the epoch began, fp64 scalar on the device.
    last_loss: mean training loss of the last whole epoch.
    seconds: wall-clock seconds of all training steps, also of earlier jobs.
    forward_macs, teacher_macs: multiply-adds of one image's forward passes through the network and
    the teacher, summed over all steps.
    val_before: validation scores of a pruned stage before its first step.
    rewind_weights: weights of the epoch `rewind_epoch` of the dense stage, which children start
    from; is_rewound: whether this stage started from such early weights.
    continued: the stage that this one continued, as in its result; `seconds` are then its own only,
    while steps and multiply-adds are those of the whole training.
    """

    loss_sum: torch.Tensor
    step: int = 0
    last_loss: float | None = None
    has_diverged: bool = False  # not in a checkpoint: a diverged stage is not saved
    seconds: float = 0.0
    forward_macs: int = 0
    teacher_macs: int = 0
    val_before: dict[str, float] | None = None
    rewind_weights: dict[str, torch.Tensor] | None = None
    is_rewound: bool = False
    continued: dict[str, Any] | None = None

    def end_epoch(self, world: World, steps: int) -> float:
        """Return the mean loss over all ranks and `steps` of an epoch, and start a new sum."""
        mean = sum(world.gather(float(self.loss_sum))) / world.size / steps
        self.loss_sum.zero_()
        self.has_diverged = self.has_diverged or not math.isfinite(mean)
        self.last_loss = None if self.has_diverged else mean
        return mean

    def state(self, world: World) -> dict[str, Any]:
        """Return what a checkpoint holds of this; the same on all ranks."""
        return {
            "loss_sums": world.gather(float(self.loss_sum)),
            "last_loss": self.last_loss,
            "val_before": self.val_before,
            "rewind": self.rewind_weights,
            "rewound": self.is_rewound,
            "macs_sum": self.forward_macs,
            "judging_sum": self.teacher_macs,
            "seconds": self.seconds,
            "continued": self.continued,
        }

    def restore(self, step: int, state: dict[str, Any], world: World) -> None:
        """Continue from a checkpoint of `step`, saved by any number of ranks."""
        self.step = step
        sums = state["loss_sums"]
        if len(sums) == world.size:
            self.loss_sum.fill_(sums[world.rank])
        elif world.rank == 0:  # the mean over the ranks stays the same: rank 0 has all of the sum
            self.loss_sum.fill_(math.fsum(sums) / len(sums) * world.size)
        self.last_loss = state["last_loss"]
        self.val_before = state["val_before"]
        self.rewind_weights, self.is_rewound = state["rewind"], state["rewound"]
        self.forward_macs, self.teacher_macs = state["macs_sum"], state["judging_sum"]
        self.seconds = state["seconds"]
        self.continued = state.get("continued")  # checkpoints of older versions lack it
