"""What a teacher says of augmented images: how difficult each op is at each magnitude.

Measures are means over images, each with half of a 95 % interval over images:

loss         cross entropy against the true label, nats
accuracy     share of images that it gets right; over that of clean images: affinity (Gontijo-Lopes
             et al. 2021, arXiv 2002.08973)
true_prob    its probability of the true class
kl           KL(clean || augmented): how far its prediction moved, nats
spread       standard deviation over images of the mean over `draws` of its probability of the
             true class, after the T. stddev of Wang et al. 2022 (docs/difficulty.md)
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from harness.augment.apply import apply
from harness.augment.batch_transform import eval_batch
from harness.augment.policy import Policy, parse_policy, with_magnitude
from harness.augment.spaces import Space
from harness.train.teacher import Teacher

MEASURES = ("loss", "accuracy", "true_prob", "kl", "spread")
BATCH = 250
NORMAL_95 = 1.959964  # quantile; images are many
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Images:
    """Clean images uint8 [N, 3, H, W], labels int64 [N], and sample ids [N] on the host."""

    pixels: torch.Tensor
    labels: torch.Tensor
    ids: NDArray[np.int64]


@dataclass(frozen=True)
class Line:
    """What the teacher says of one op at one magnitude; `halves` as `means`, by measure."""

    op: str
    magnitude: float
    means: dict[str, float]
    halves: dict[str, float]


def single_op(space: Space, op: str) -> Space:
    """A space that does one op of `space` to every image."""
    rows = tuple(row for row in space.rows if row.op == op)
    return replace(space, rows=rows, chains=(), n=1, p=1.0, spread="fixed")


def measure(
    teacher: Teacher, images: Images, policies: Sequence[tuple[str, float, Policy]], draws: int
) -> Iterator[Line]:
    """A line for each (op or name, magnitude, policy), in order; `draws` augmentations an image."""
    clean = _log_probabilities(teacher, images, parse_policy("none"), 0)
    for name, magnitude, policy in policies:
        said = [_log_probabilities(teacher, images, policy, draw) for draw in range(draws)]
        yield _line(name, magnitude, clean, said, images.labels.cpu().numpy())


def op_policies(policy: str, magnitudes: Sequence[float]) -> list[tuple[str, float, Policy]]:
    """Each op of a policy's space alone, at each magnitude, with the policy's own fill."""
    whole = parse_policy(with_magnitude(policy, 1.0))
    ops = [row.op for row in whole.space.rows if row.op != "Identity"]
    return [
        (op, m, replace(whole, space=single_op(whole.space, op), n=1, m=m, spread="fixed"))
        for op in ops
        for m in magnitudes
    ]


@torch.no_grad()
def _log_probabilities(teacher: Teacher, images: Images, policy: Policy, draw: int) -> torch.Tensor:
    """Of every class, fp64 [N, classes], for the `draw`-th augmentation."""
    found = []
    for begin in range(0, len(images.ids), BATCH):
        part = slice(begin, begin + BATCH)
        plan = policy.draw(0, draw, images.ids[part])
        pixels = apply(images.pixels[part], plan) if policy.space.rows else images.pixels[part]
        logits = teacher.logits(eval_batch(pixels, transform=teacher.transform))
        found.append(logits.double().log_softmax(1).cpu())
    return torch.cat(found)


def _line(
    name: str,
    magnitude: float,
    clean: torch.Tensor,
    said: Sequence[torch.Tensor],
    labels: NDArray[np.int64],
) -> Line:
    """Draws of one image are averaged first: images are the independent units."""
    at = np.arange(len(labels))
    per_image: dict[str, Floats] = {
        "loss": np.mean([-log.numpy()[at, labels] for log in said], axis=0),
        "accuracy": np.mean([log.argmax(1).numpy() == labels for log in said], axis=0),
        "true_prob": np.mean([np.exp(log.numpy()[at, labels]) for log in said], axis=0),
        "kl": np.mean([(clean.exp() * (clean - log)).sum(1).numpy() for log in said], axis=0),
    }
    number = len(labels)
    means = {key: float(values.mean()) for key, values in per_image.items()}
    halves = {
        key: NORMAL_95 * float(values.std(ddof=1)) / math.sqrt(number)
        for key, values in per_image.items()
    }
    values = per_image["true_prob"]
    spread = float(values.std(ddof=1))
    fourth = float(((values - values.mean()) ** 4).mean())
    # the delta method on the variance: var(s^2) = (m4 - s^4) / n, and s = sqrt(s^2)
    error = math.sqrt(max(0.0, fourth - spread**4) / number) / (2 * spread) if spread else 0.0
    return Line(
        name, magnitude, {**means, "spread": spread}, {**halves, "spread": NORMAL_95 * error}
    )
