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
    from torch's default generator. `classifier` names the linear layer that returns the logits, and
    `first_conv` the convolution that takes the image. Each is None if there is not exactly one such
    layer.

    `depths` are the valid depths, or None if the depth cannot be chosen. `min_resolution` is the
    smallest side of an image in pixels. A family with a `patch` learns a position for each patch of
    `patch` x `patch` pixels, and the side of an image must be a multiple of `patch`. With
    `width_steps`, widths are multiples of 1 / `width_steps`. `fixed_width` is True for models of
    timm, whose width is 1. With `patch` or `fixed_width`, `build` has one more argument,
    `resolution`.

    The last three fields state which kinds of compression the layers allow:
    `removable_channels`: `forward` contains no number of channels, so channels can be removed.
    `nested_widths`: a narrower model has the layers of a wider one, with fewer channels each.
    `conv_norm_pairs`: there are dense convolutions of 3x3 or more whose output goes to a batch norm
    and nowhere else.
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
