"""ImageNet's ResNet with a stem for small images: one 3x3 convolution, no pooling.

The "ResNet-18" of most CIFAR papers: 11,173,962 parameters for 10 classes at width 1 and 0.56
billion multiply-adds at 32x32. He et al.'s own network for CIFAR is `cifar_resnet`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.models.families import resnet
from harness.models.family import Family, register_family

if TYPE_CHECKING:
    from torch import nn


def build(depth: int, width: float, num_classes: int, in_channels: int) -> nn.Module:
    """Return ResNet-`depth`."""
    return resnet.build(depth, width, num_classes, in_channels, small_images=True)


register_family(
    Family(
        "cifar_stem_resnet",
        build,
        classifier=resnet.CLASSIFIER,
        first_conv=resnet.FIRST_CONV,
        depths=(18, 34, 50),
        min_resolution=8,
    )
)
