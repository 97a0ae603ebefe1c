"""MobileNetV2 (Sandler et al. 2018), timm's: `width` is the paper's multiplier.

Channels are multiples of 8; the last convolution keeps its 1280 channels below width 1, as in the
paper. At width 1: 3,504,872 parameters and 301 million multiply-adds at 224x224.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.models.family import Family, register_family

if TYPE_CHECKING:
    from torch import nn

CLASSIFIER = "classifier"
FIRST_CONV = "conv_stem"


def build(depth: None, width: float, num_classes: int, in_channels: int) -> nn.Module:
    """Return the network, from timm's tables."""
    from timm.models.efficientnet import _gen_mobilenet_v2

    return _gen_mobilenet_v2(
        "mobilenetv2_100", channel_multiplier=width, num_classes=num_classes, in_chans=in_channels
    )


register_family(
    Family("mobilenetv2", build, classifier=CLASSIFIER, first_conv=FIRST_CONV, min_resolution=17)
)
