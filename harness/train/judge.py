"""What a teacher does to a batch in training: it labels images, chooses among them, weighs them.

Labels: the teacher's class (`hard`) or probabilities (`soft`; Wei et al. 2020, KD for AutoAugment)
take the share `weight` of the targets. Choice: of `candidates` augmentations of an image, the one
whose teacher's loss is nearest to `target`. Weight: an image whose loss is above `cap` is dropped,
or counts cap / loss. Losses are against the true label, in nats. All of this is a function of the
images only, so a stage with a teacher resumes, and trains in a gang, like any other.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch.nn import functional as F

from harness.augment.batch_transform import BatchTransform
from harness.schema import TeacherConfig
from harness.train.teacher import Teacher

ImagesAndTargets = tuple[torch.Tensor, torch.Tensor]
CANDIDATE_EPOCHS = 2**24  # candidate number k has the draws of k times this many epochs later


def judge_batch(
    config: TeacherConfig,
    teacher: Teacher,
    augment: Callable[[int], ImagesAndTargets],
    labels: torch.Tensor,
    transform: BatchTransform,
) -> ImagesAndTargets:
    """Return the images and targets of a batch, as the teacher decides.

    `augment(k)` returns the batch with the draws of k epochs later, normalised by `transform`;
    labels: int64 [N]. The targets are those of `augment`, or shares float32 [N, classes] that sum
    to the weight of the image.
    """
    losses = functools.partial(F.cross_entropy, reduction="none")  # of each image
    images, targets = augment(0)
    logits = teacher.logits(images, transform)
    if config.target is not None:
        distance = (losses(logits, labels) - config.target).abs()
        for number in range(1, config.candidates):
            other_images, _ = augment(number * CANDIDATE_EPOCHS)
            other_logits = teacher.logits(other_images, transform)
            other_distance = (losses(other_logits, labels) - config.target).abs()
            is_nearer = other_distance < distance
            images = torch.where(is_nearer[:, None, None, None], other_images, images)
            logits = torch.where(is_nearer[:, None], other_logits, logits)
            distance = torch.where(is_nearer, other_distance, distance)
    if config.labels == "true" and config.cap is None:
        return images, targets
    classes = logits.shape[1]
    shares = targets if targets.ndim == 2 else F.one_hot(targets, classes).float()
    if config.labels != "true":
        teachers_shares = logits.softmax(1)
        if config.labels == "hard":
            teachers_shares = F.one_hot(teachers_shares.argmax(1), classes).float()
        shares = torch.lerp(shares, teachers_shares, config.weight)
    if config.cap is not None:
        loss = losses(logits, labels)
        if config.beyond == "down_weight":
            weights = torch.clamp(config.cap / loss.clamp_min(1e-12), max=1.0)
        else:
            weights = (loss <= config.cap).float()
        shares = shares * weights[:, None]
    return images, shares
