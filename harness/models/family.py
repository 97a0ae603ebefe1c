"""What a model family declares, and the registry of families by name.

This module does not import torch, so that a plan can check its models without it. For the same
reason a shipped family imports torch inside `build`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from harness.plugins import Registry

if TYPE_CHECKING:
    from torch import nn

Network: TypeAlias = "nn.Module"


@dataclass(frozen=True)
class Family:
    """A model family: a function that builds it, the names of two modules, and its limits.

    `build(depth, width, num_classes, in_channels)` returns the network, with initial weights drawn
    from torch's default generator. `classifier` names the linear layer that gives the logits and
    `first_conv` the convolution that sees the image; None where there is not exactly one.

    `depths` are the valid ones; None: the family has no depth. `min_resolution` is the smallest
    side of an image in pixels. A family with a `patch` takes multiples of so many pixels and learns
    a position for each patch; its `build` has one more argument, `resolution`. Widths are multiples
    of 1 / `width_steps`, where the family has such steps. `fixed_width` marks timm's own models,
    whose width is 1.

    The last three say which compression the layers allow. `removable_channels`: `forward` contains
    no number of channels, so that channels can be removed. `nested_widths`: a narrower model has
    the layers of a wider one, with fewer channels each. `conv_norm_pairs`: there are dense
    convolutions of 3x3 or more whose output goes to a batch norm alone.
    """

    name: str
    build: Callable[..., Network]
    classifier: str | None
    first_conv: str | None
    depths: tuple[int, ...] | None = None
    min_resolution: int = 1
    patch: int | None = None
    width_steps: int | None = None
    fixed_width: bool = False
    removable_channels: bool = False
    nested_widths: bool = False
    conv_norm_pairs: bool = False


FAMILIES: Registry[Family] = Registry("model family")


def register_family(family: Family) -> None:
    """Add a family, so that grids can name it. Raises UserError if the name is taken."""
    FAMILIES.register(family.name, family)


def scale_channels(channels: int, width: float) -> int:
    """Return `channels * width`, rounded to the nearest integer (halves up), at least 1."""
    return max(1, math.floor(channels * width + 0.5))
