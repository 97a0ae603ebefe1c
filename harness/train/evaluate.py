"""The scores of a network on a split; each example counts once, with any number of ranks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

from harness.augment.batch_transform import BatchTransform, eval_batch
from harness.data.types import SplitName
from harness.schema import RecipeConfig
from harness.statistics import ClassCounts, calibration_error
from harness.train.engine_base import autocast
from harness.train.gang import Gang

BATCH = 256  # images of one rank's forward pass: constant, so that equal weights give equal bits


TOP5_CLASSES = 20  # with fewer, top-5 accuracy hardly distinguishes networks


@dataclass(frozen=True)
class Scores:
    """Accuracies and calibration error in [0, 1]; mean cross entropy in nats, without smoothing.

    `correct` [N] says for each example whether it was classified correctly. `top5` is None for sets
    with fewer than `TOP5_CLASSES` classes.
    """

    top1: float
    loss: float
    calibration_error: float
    top5: float | None
    correct: NDArray[np.bool_]
    classes: ClassCounts

    def summary(self) -> dict[str, float]:
        """Return the scores that a result holds."""
        top5 = {} if self.top5 is None else {"top5": self.top5}
        return {
            "top1": self.top1,
            "loss": self.loss,
            **top5,
            "calibration_error": self.calibration_error,
            "worst_class": self.classes.worst,
            "class_spread": self.classes.spread,
        }


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
    has_top5 = gang.dataset.info.num_classes >= TOP5_CLASSES
    columns: list[list[torch.Tensor]] = [[] for _ in range(5)]
    try:
        for batch in gang.loader.evaluate(split, BATCH):
            images = eval_batch(batch.images, transform=transform, channels_last=channels_last)
            with autocast(recipe, world.device):
                logits = module(images).float()
            for column, values in zip(columns, _judge(logits, batch.labels, has_top5), strict=True):
                column.append(values.cpu())
            gang.heartbeat()
    finally:
        module.train(was_training)
    own = [torch.cat(column).numpy() if column else np.zeros(0) for column in columns]
    parts = zip(*world.gather(own), strict=True)
    losses, correct, in_top5, confidence, labels = map(np.concatenate, parts)
    correct = correct.astype(bool)  # a rank without examples adds none, as floats
    return Scores(
        top1=float(correct.mean()),
        loss=float(losses.astype(np.float64).mean()),
        calibration_error=calibration_error(confidence.astype(np.float64), correct),
        top5=float(in_top5.astype(np.float64).mean()) if has_top5 else None,
        correct=correct,
        classes=ClassCounts.of(labels.astype(np.int64), correct, gang.dataset.info.num_classes),
    )


def _judge(logits: torch.Tensor, labels: torch.Tensor, has_top5: bool) -> tuple[torch.Tensor, ...]:
    """Return for each example its loss, whether it is correct and in the top 5, confidence, label.

    Without `has_top5` the third is the same as the second.
    """
    correct = logits.argmax(1) == labels
    in_top5 = correct
    if has_top5:
        in_top5 = correct | (logits.topk(5, dim=1).indices == labels[:, None]).any(1)
    loss = F.cross_entropy(logits, labels, reduction="none")
    return loss, correct, in_top5, logits.softmax(1).amax(1), labels
