"""Loss and top-1 over a split: every example once, whatever the number of ranks."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

from harness.augment.batch_transform import BatchTransform, eval_batch
from harness.data.types import Loader, SplitName
from harness.schema import RecipeConfig
from harness.train.distributed import World
from harness.train.engine import autocast

BATCH = 256  # images of one rank's forward: a constant, so that equal weights give equal bits


@dataclass(frozen=True)
class Scores:
    """Mean cross entropy (nats, no smoothing), top-1 as a share, and which examples were right."""

    top1: float
    loss: float
    correct: NDArray[np.bool_]

    def summary(self) -> dict[str, float]:
        """What goes into a result."""
        return {"top1": self.top1, "loss": self.loss}


@torch.no_grad()
def evaluate(
    module: nn.Module,
    loader: Loader,
    split: SplitName,
    recipe: RecipeConfig,
    transform: BatchTransform,
    world: World,
    channels_last: bool,
    beat: Callable[[], None],
) -> Scores:
    """Scores on all of `split`, on every rank; the module's mode is as before afterwards.

    All ranks take rank 0's batch-norm statistics first. Losses of single examples are added in
    fp64 in the split's order, however the ranks shared them. `beat` is called after each batch.
    """
    world.share_buffers(module)
    mode = module.training
    module.eval()
    losses, right = [torch.zeros(0)], [torch.zeros(0, dtype=torch.bool)]
    try:
        for batch in loader.evaluate(split, BATCH):
            images = eval_batch(batch.images, transform=transform, channels_last=channels_last)
            with autocast(recipe, world.device):
                logits = module(images).float()
            losses.append(F.cross_entropy(logits, batch.labels, reduction="none").cpu())
            right.append((logits.argmax(1) == batch.labels).cpu())
            beat()
    finally:
        module.train(mode)
    parts = world.gather((torch.cat(losses).numpy(), torch.cat(right).numpy()))
    loss = np.concatenate([part[0] for part in parts]).astype(np.float64)
    correct = np.concatenate([part[1] for part in parts])
    return Scores(float(correct.mean()), float(loss.mean()), correct)


def packed(correct: Mapping[str, NDArray[np.bool_]]) -> bytes:
    """`correct.npz`: a bit per example and split, with the number of examples; some 100 bytes."""
    arrays: dict[str, Any] = {}
    for split, bits in correct.items():
        arrays[split] = np.packbits(bits)
        arrays[f"{split}_count"] = np.array(len(bits))
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()
