"""ImageNet's ResNet with a stem for small images: one 3x3 convolution, no pooling.

The "ResNet-18" of most CIFAR papers: 11,173,962 parameters for 10 classes at width 1 and 0.56
billion multiply-adds at 32x32. He et al.'s own network for CIFAR is `cifar_resnet`.
"""

from __future__ import annotations

from torch import nn

from harness.models.resnet import CLASSIFIER as CLASSIFIER
from harness.models.resnet import FIRST_CONV as FIRST_CONV
from harness.models.resnet import make


def build(depth: int, width: float, num_classes: int, in_channels: int) -> nn.Module:
    """ResNet-`depth`, initialised from torch's default generator."""
    return make(depth, width, num_classes, in_channels, small_images=True)
