"""MobileNetV2 (Sandler et al. 2018), timm's: `width` is the paper's multiplier.

Channels are multiples of 8; the last convolution keeps its 1280 channels below width 1, as in the
paper. At width 1: 3,504,872 parameters and 301 million multiply-adds at 224x224.
"""

from __future__ import annotations

from timm.models.efficientnet import EfficientNet, _gen_mobilenet_v2
from torch import nn

CLASSIFIER = "classifier"
FIRST_CONV = "conv_stem"


def make(width: float, num_classes: int, in_channels: int) -> EfficientNet:
    """The network, from timm's tables."""
    return _gen_mobilenet_v2(
        "mobilenetv2_100", channel_multiplier=width, num_classes=num_classes, in_chans=in_channels
    )


def build(depth: int | None, width: float, num_classes: int, in_channels: int) -> nn.Module:
    """MobileNetV2, initialised from torch's default generator."""
    return make(width, num_classes, in_channels)
