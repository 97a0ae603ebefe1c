"""EfficientNet (Tan and Le 2019), timm's: `width` and `depth` are the two of compound scaling.

`depth` counts MBConv blocks: 16 is B0, 23 B1 and B2, 26 B3, 32 B4, 39 B5, 45 B6, 55 B7, whose
widths are 1, 1, 1.1, 1.2, 1.4, 1.6, 1.8, 2. Channels are multiples of 8. B0 has 5,288,548
parameters and 386 million multiply-adds at 224x224. No dropout, no stochastic depth.
"""

from __future__ import annotations

from harness.models.family import Family, Network, register_family

MULTIPLIERS = {16: 1.0, 23: 1.1, 26: 1.4, 32: 1.8, 39: 2.2, 45: 2.6, 55: 3.1}


def build(depth: int, width: float, num_classes: int, in_channels: int) -> Network:
    """Return EfficientNet with `depth` blocks."""
    from timm.models.efficientnet import _gen_efficientnet

    return _gen_efficientnet(
        "efficientnet_b0",
        channel_multiplier=width,
        depth_multiplier=MULTIPLIERS[depth],
        num_classes=num_classes,
        in_chans=in_channels,
    )


register_family(
    Family(
        "efficientnet",
        build,
        classifier="classifier",
        first_conv="conv_stem",
        depths=tuple(MULTIPLIERS),
        min_resolution=17,
        removable_channels=True,
        nested_widths=True,
    )
)
