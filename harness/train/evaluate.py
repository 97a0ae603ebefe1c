"""Loss and top-1 accuracy of a split; each example counts once, with any number of ranks."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

from harness.augment.batch_transform import BatchTransform, eval_batch
from harness.data.types import SplitName
from harness.schema import RecipeConfig
from harness.train.engine_base import autocast
from harness.train.gang import Gang

BATCH = 256  # images of one rank's forward pass: constant, so that equal weights give equal bits


@dataclass(frozen=True)
class Scores:
    """Top-1 accuracy in [0, 1], mean cross entropy in nats without smoothing, and `correct` [N].

    `correct` says for each example whether it was classified correctly.
    """

    top1: float
    loss: float
    correct: NDArray[np.bool_]

    def summary(self) -> dict[str, float]:
        """Return the scores that a result holds."""
        return {"top1": self.top1, "loss": self.loss}


@torch.no_grad()
def evaluate(
    module: nn.Module, gang: Gang, split: SplitName, recipe: RecipeConfig, transform: BatchTransform
) -> Scores:
    """Return the scores on all of `split`, on every rank; the module's mode is restored.

    First all ranks take rank 0's batch-norm statistics. Losses of single examples are added in fp64
    in the split's order, however the ranks shared them. The gang's heartbeat is called after each
    batch.
    """
    world, channels_last = gang.world, gang.run.channels_last
    world.share_buffers(module)
    was_training = module.training
    module.eval()
    losses, correct = [torch.zeros(0)], [torch.zeros(0, dtype=torch.bool)]
    try:
        for batch in gang.loader.evaluate(split, BATCH):
            images = eval_batch(batch.images, transform=transform, channels_last=channels_last)
            with autocast(recipe, world.device):
                logits = module(images).float()
            losses.append(F.cross_entropy(logits, batch.labels, reduction="none").cpu())
            correct.append((logits.argmax(1) == batch.labels).cpu())
            gang.heartbeat()
    finally:
        module.train(was_training)
    parts = world.gather((torch.cat(losses).numpy(), torch.cat(correct).numpy()))
    all_losses = np.concatenate([part[0] for part in parts]).astype(np.float64)
    all_correct = np.concatenate([part[1] for part in parts])
    return Scores(float(all_correct.mean()), float(all_losses.mean()), all_correct)


def packed(correct: Mapping[str, NDArray[np.bool_]]) -> bytes:
    """Return the bytes of `correct.npz`: for each split a bit per example, and their number."""
    arrays: dict[str, Any] = {}
    for split, bits in correct.items():
        arrays[split] = np.packbits(bits)
        arrays[f"{split}_count"] = np.array(len(bits))
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()
