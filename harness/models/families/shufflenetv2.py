"""ShuffleNetV2 (Ma et al. 2018), torchvision's, and its version for small images.

`width` is the paper's, 0.5, 1, 1.5 and 2 exactly. Between these the channels of the second stage,
48, 116, 176 and 244, are interpolated (and scaled above 2), rounded to even numbers, and doubled
from stage to stage. The stem keeps 24 channels and the last convolution 1024 (2048 from width 2).
At width 1: 2,278,604 parameters and 145 million multiply-adds at 224x224. In `cifar_shufflenetv2`
the stem keeps the resolution and is not pooled: 1,263,854 parameters for 10 classes and 45 million
multiply-adds at 32x32.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.models.family import Family, register_family

if TYPE_CHECKING:
    from torchvision.models.shufflenetv2 import ShuffleNetV2

BLOCKS = (4, 8, 4)


def channels(width: float) -> list[int]:
    """Return the channels of the stem, three stages, and the last convolution."""
    import numpy as np  # a plan may be made without it

    published = np.interp(width, (0.0, 0.5, 1.0, 1.5, 2.0), (0, 48, 116, 176, 244))
    stage = max(2, 2 * round(float(published) * max(1.0, width / 2) / 2))
    return [24, stage, 2 * stage, 4 * stage, 2048 if width >= 2 else 1024]


def build(depth: None, width: float, num_classes: int, in_channels: int) -> ShuffleNetV2:
    """Return the network, from torchvision's class."""
    from torch import nn
    from torchvision.models.shufflenetv2 import ShuffleNetV2

    model = ShuffleNetV2(list(BLOCKS), channels(width), num_classes)
    if in_channels != 3:
        model.conv1[0] = nn.Conv2d(in_channels, 24, 3, 2, 1, bias=False)
    return model


def build_small(depth: None, width: float, num_classes: int, in_channels: int) -> ShuffleNetV2:
    """Return the network with a total stride of 8 instead of 32."""
    from torch import nn

    model = build(depth, width, num_classes, in_channels)
    model.conv1[0].stride = (1, 1)
    model.maxpool = nn.Identity()
    return model


register_family(Family("shufflenetv2", build, "fc", "conv1.0", min_resolution=17))
register_family(Family("cifar_shufflenetv2", build_small, "fc", "conv1.0", min_resolution=8))
