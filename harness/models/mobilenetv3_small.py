"""MobileNetV3-Small (Howard et al. 2019), timm's: `width` is the paper's multiplier.

Channels are multiples of 8; the layer before the classifier keeps its size at any width, and the
stem its 16 channels below width 0.75. At width 1: 2,542,856 parameters and 57 million
multiply-adds at 224x224.
"""

from __future__ import annotations

from timm.models.mobilenetv3 import _gen_mobilenet_v3
from torch import nn

CLASSIFIER = "classifier"
FIRST_CONV = "conv_stem"


def build(depth: int | None, width: float, num_classes: int, in_channels: int) -> nn.Module:
    """MobileNetV3-Small, initialised from torch's default generator."""
    return _gen_mobilenet_v3(
        "mobilenetv3_small_100",
        channel_multiplier=width,
        num_classes=num_classes,
        in_chans=in_channels,
    )
