"""MobileNetV2 for small images: the stem and the second stage keep the resolution.

At width 1, for 10 classes: 2,236,682 parameters and 88 million multiply-adds at 32x32.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.models.families import mobilenetv2
from harness.models.family import Family, register_family

if TYPE_CHECKING:
    from torch import nn


def build(depth: None, width: float, num_classes: int, in_channels: int) -> nn.Module:
    """Return MobileNetV2 with a total stride of 8."""
    from torch import nn

    model = mobilenetv2.build(depth, width, num_classes, in_channels)
    for name in (mobilenetv2.FIRST_CONV, "blocks.1.0.conv_dw"):
        conv = model.get_submodule(name)
        assert isinstance(conv, nn.Conv2d)
        conv.stride = (1, 1)
    return model


register_family(
    Family(
        "cifar_mobilenetv2",
        build,
        classifier=mobilenetv2.CLASSIFIER,
        first_conv=mobilenetv2.FIRST_CONV,
        min_resolution=8,
    )
)
