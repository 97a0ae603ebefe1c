"""MobileNetV3-Large (Howard et al. 2019), timm's: `width` is the paper's multiplier.

Channels are multiples of 8; the layer before the classifier keeps its size at any width, and the
stem its 16 channels below width 0.75. At width 1: 5,483,032 parameters and 217 million
multiply-adds at 224x224.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.models.family import Family, register_family

if TYPE_CHECKING:
    from torch import nn


def build(depth: None, width: float, num_classes: int, in_channels: int) -> nn.Module:
    """Return MobileNetV3-Large."""
    from timm.models.mobilenetv3 import _gen_mobilenet_v3

    return _gen_mobilenet_v3(
        "mobilenetv3_large_100",
        channel_multiplier=width,
        num_classes=num_classes,
        in_chans=in_channels,
    )


register_family(
    Family(
        "mobilenetv3_large",
        build,
        classifier="classifier",
        first_conv="conv_stem",
        min_resolution=17,
    )
)
