"""A teacher in training: it labels the augmented images, and chooses or weighs them.

Labels: the teacher's classes (`hard`) or probabilities (`soft`; Wei et al. 2020, KD for
AutoAugment) take the share `weight` of the targets. Choice: of `candidates` augmentations of an
image the one whose teacher's loss is nearest to `target`. Weight: images whose loss is above `cap`
are dropped, or count cap / loss. Losses are against the true label, in nats. All of it is a
function of the images, so stages resume, and share gangs, as others do.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional as F

from harness.augment.batch_transform import BatchTransform
from harness.schema import TeacherConfig
from harness.train.teacher import Teacher, cross_entropy

Drawn = tuple[torch.Tensor, torch.Tensor]
OTHER_DRAWS = 2**24  # a candidate's draws are those of this many epochs later


def judged(
    config: TeacherConfig,
    teacher: Teacher,
    draw: Callable[[int], Drawn],
    labels: torch.Tensor,
    seen: BatchTransform,
) -> Drawn:
    """Images and targets of a batch. `draw(epochs later)` augments it; labels int64 [N].

    Targets are as drawn, or shares float32 [N, classes] that sum to a sample's weight.
    """
    images, targets = draw(0)
    logits = teacher.logits(images, seen)
    if config.target is not None:
        best = (cross_entropy(logits, labels) - config.target).abs()
        for number in range(1, config.candidates):
            others, _ = draw(number * OTHER_DRAWS)
            said = teacher.logits(others, seen)
            distance = (cross_entropy(said, labels) - config.target).abs()
            nearer = distance < best
            images = torch.where(nearer[:, None, None, None], others, images)
            logits = torch.where(nearer[:, None], said, logits)
            best = torch.where(nearer, distance, best)
    if config.labels == "true" and config.cap is None:
        return images, targets
    shares = targets if targets.ndim == 2 else F.one_hot(targets, logits.shape[1]).float()
    if config.labels != "true":
        own = logits.softmax(1)
        if config.labels == "hard":
            own = F.one_hot(own.argmax(1), logits.shape[1]).float()
        shares = torch.lerp(shares, own, config.weight)
    if config.cap is not None:
        loss = cross_entropy(logits, labels)
        kept = (loss <= config.cap).float()
        if config.beyond == "down_weight":
            kept = torch.clamp(config.cap / loss.clamp_min(1e-12), max=1.0)
        shares = shares * kept[:, None]
    return images, shares
