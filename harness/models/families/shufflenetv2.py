"""ShuffleNetV2 (Ma et al. 2018) as in torchvision, and a version for small images.

At widths 0.5, 1, 1.5 and 2 the networks are exactly those of the paper: their first stage of blocks
(Stage2 in the paper) has 48, 116, 176 and 244 channels. At other widths this number is interpolated
(above width 2: scaled up) and rounded to an even number. Each of the next two stages has twice the
channels of the one before. The stem always has 24 channels, and the last convolution has 1024 (from
width 2 on: 2048).

At width 1 it has 2,278,604 parameters and 145 million multiply-adds at 224x224. The stem of
`cifar_shufflenetv2` has stride 1 and is not followed by pooling: 1,263,854 parameters for 10
classes and 45 million multiply-adds at 32x32.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.models.family import Family, register_family

if TYPE_CHECKING:
    from torchvision.models.shufflenetv2 import ShuffleNetV2

BLOCKS = (4, 8, 4)  # of the three stages


def channels(width: float) -> list[int]:
    """Return the channels of the stem, three stages, and the last convolution."""
    import numpy as np  # here, because planning must work without NumPy

    interpolated = float(np.interp(width, (0.0, 0.5, 1.0, 1.5, 2.0), (0, 48, 116, 176, 244)))
    first_stage = max(2, 2 * round(interpolated * max(1.0, width / 2) / 2))
    return [24, first_stage, 2 * first_stage, 4 * first_stage, 2048 if width >= 2 else 1024]


def build(depth: None, width: float, num_classes: int, in_channels: int) -> ShuffleNetV2:
    """Return the network as an instance of torchvision's class."""
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
