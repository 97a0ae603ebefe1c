"""EfficientNet (Tan and Le 2019) from timm, whose compound scaling changes `width` and `depth`.

`depth` is the number of MBConv blocks. The published networks have these depths and widths:

    B0   B1   B2    B3    B4    B5    B6    B7
    16   23   23    26    32    39    45    55
    1    1    1.1   1.2   1.4   1.6   1.8   2

Channels are multiples of 8. B0 has 5,288,548 parameters and 386 million multiply-adds at 224x224.
There is no dropout and no stochastic depth.
"""

from __future__ import annotations

from harness.models.family import Family, Network, register_family

MULTIPLIERS = {16: 1.0, 23: 1.1, 26: 1.4, 32: 1.8, 39: 2.2, 45: 2.6, 55: 3.1}
"""The paper's depth multiplier for each number of blocks. B2's, 1.2, also gives 23 blocks."""


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
