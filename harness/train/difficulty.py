"""Measures how difficult augmented images are for a teacher: each op at each magnitude.

Measures are means over images. Each has half of a 95 % confidence interval over images:

loss         cross entropy against the true label, nats
accuracy     share of images that the teacher classifies correctly; divided by that of clean images
             it is the affinity (Gontijo-Lopes et al. 2021, arXiv 2002.08973)
true_prob    the teacher's probability of the true class
kl           KL(clean || augmented): how far the teacher's prediction moved, nats
spread       standard deviation over images of the mean over `draws` of the teacher's probability of
             the true class, after the T. stddev of Wang et al. 2022 (docs/difficulty.md)
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from harness.augment.batch_transform import eval_batch
from harness.augment.executors import apply, choose_executor
from harness.augment.policy import Policy, parse_policy, with_magnitude
from harness.statistics import NORMAL_QUANTILE
from harness.train.teacher import Teacher

MEASURES = ("loss", "accuracy", "true_prob", "kl", "spread")
BATCH = 250
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Images:
    """Clean images uint8 [N, 3, H, W], labels int64 [N], and sample ids [N] on the host."""

    pixels: torch.Tensor
    labels: torch.Tensor
    ids: NDArray[np.int64]


@dataclass(frozen=True)
class Difficulty:
    """How difficult an op is at a magnitude: for each measure its mean over images.

    `half_widths`: half of each mean's 95 % confidence interval.
    """

    op: str
    magnitude: float
    means: dict[str, float]
    half_widths: dict[str, float]


def op_policies(policy: str, magnitudes: Sequence[float]) -> list[tuple[str, float, Policy]]:
    """Return (op, magnitude, policy of that op alone) for each op of a policy's space."""
    whole = parse_policy(with_magnitude(policy, 1.0))
    policies = []
    for op in [row.op for row in whole.space.rows if row.op != "Identity"]:
        rows = tuple(row for row in whole.space.rows if row.op == op)
        space = replace(whole.space, rows=rows, chains=(), n=1, p=1.0, spread="fixed")
        of_op = replace(whole, space=space, n=1, spread="fixed")
        policies += [(op, m, replace(of_op, m=m)) for m in magnitudes]
    return policies


def measure(
    teacher: Teacher, images: Images, policies: Sequence[tuple[str, float, Policy]], draws: int
) -> Iterator[Difficulty]:
    """Yield the difficulty of each (op or name, magnitude, policy), from `draws` of each image."""
    labels = images.labels.cpu().numpy()
    clean = _log_probabilities(teacher, images, parse_policy("none"), 0)
    for name, magnitude, policy in policies:
        augmented = [_log_probabilities(teacher, images, policy, draw) for draw in range(draws)]
        yield _difficulty(name, magnitude, clean, augmented, labels)


@torch.no_grad()
def _log_probabilities(teacher: Teacher, images: Images, policy: Policy, draw: int) -> torch.Tensor:
    """Return log probabilities fp64 [N, classes] of the images, each augmented by its draw."""
    parts = []
    for start in range(0, len(images.ids), BATCH):
        part = slice(start, start + BATCH)
        plan = policy.draw(0, draw, images.ids[part])
        pixels = images.pixels[part]
        if policy.space.rows:
            pixels = apply(pixels, plan, choose_executor(pixels.device))
        logits = teacher.logits(eval_batch(pixels, transform=teacher.transform))
        parts.append(logits.double().log_softmax(1).cpu())
    return torch.cat(parts)


def _difficulty(
    name: str,
    magnitude: float,
    clean: torch.Tensor,
    augmented: Sequence[torch.Tensor],
    labels: NDArray[np.int64],
) -> Difficulty:
    """Return all measures of log probabilities [N, classes]: clean, and augmented for each draw.

    Draws of one image are averaged first, because images are the independent units.
    """
    number = len(labels)
    rows = np.arange(number)
    draws = [log.numpy() for log in augmented]
    per_image: dict[str, Floats] = {
        "loss": np.mean([-log[rows, labels] for log in draws], axis=0),
        "accuracy": np.mean([log.argmax(1).numpy() == labels for log in augmented], axis=0),
        "true_prob": np.mean([np.exp(log[rows, labels]) for log in draws], axis=0),
        "kl": np.mean([(clean.exp() * (clean - log)).sum(1).numpy() for log in augmented], axis=0),
    }
    means = {key: float(values.mean()) for key, values in per_image.items()}
    half_widths = {
        key: NORMAL_QUANTILE * float(values.std(ddof=1)) / math.sqrt(number)
        for key, values in per_image.items()
    }
    values = per_image["true_prob"]
    spread = float(values.std(ddof=1))
    fourth_moment = float(((values - values.mean()) ** 4).mean())
    # by the delta method, from the variance of a variance: var(s^2) = (m4 - s^4) / n
    variance = max(0.0, fourth_moment - spread**4) / number
    half = NORMAL_QUANTILE * math.sqrt(variance) / (2 * spread) if spread else 0.0
    return Difficulty(name, magnitude, {**means, "spread": spread}, {**half_widths, "spread": half})
