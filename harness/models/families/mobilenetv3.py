"""MobileNetV3 Large and Small (Howard et al. 2019) from timm; `width` is the paper's multiplier.

Channels are multiples of 8. The layer before the classifier has the same size at any width, and the
stem keeps its 16 channels below width 0.75. At width 1 and 224x224, Large has 5,483,032 parameters
and 217 million multiply-adds, and Small has 2,542,856 parameters and 57 million multiply-adds.
"""

from __future__ import annotations

import functools

from harness.models.family import Family, Network, register_family


def _build(variant: str, depth: None, width: float, num_classes: int, in_channels: int) -> Network:
    from timm.models.mobilenetv3 import _gen_mobilenet_v3

    return _gen_mobilenet_v3(
        f"mobilenetv3_{variant}_100",
        channel_multiplier=width,
        num_classes=num_classes,
        in_chans=in_channels,
    )


for _variant in ("large", "small"):
    register_family(
        Family(
            f"mobilenetv3_{_variant}",
            functools.partial(_build, _variant),
            classifier="classifier",
            first_conv="conv_stem",
            min_resolution=17,
            removable_channels=True,
            nested_widths=True,
        )
    )
