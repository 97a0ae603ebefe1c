"""ShuffleNetV2 for small images: the stem keeps the resolution and is not pooled.

At width 1, for 10 classes: 1,263,854 parameters and 45 million multiply-adds at 32x32.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.models.families import shufflenetv2
from harness.models.family import Family, register_family

if TYPE_CHECKING:
    from torchvision.models.shufflenetv2 import ShuffleNetV2


def build(depth: None, width: float, num_classes: int, in_channels: int) -> ShuffleNetV2:
    """Return ShuffleNetV2 with a total stride of 8."""
    from torch import nn

    model = shufflenetv2.build(depth, width, num_classes, in_channels)
    model.conv1[0].stride = (1, 1)
    model.maxpool = nn.Identity()
    return model


register_family(
    Family(
        "cifar_shufflenetv2",
        build,
        classifier=shufflenetv2.CLASSIFIER,
        first_conv=shufflenetv2.FIRST_CONV,
        min_resolution=8,
    )
)
