"""ConvNeXt (Liu et al. 2022) from timm: 96-192-384-768 channels times `width`, and `depth` blocks.

Channels are multiples of 8. ConvNeXt-T has depth 18 and width 1 (28,589,128 parameters and 4.46
billion multiply-adds at 224x224), S depth 36 and width 1, B depth 36 and width 4/3, and timm's Atto
depth 12 and width 5/12. There is no stochastic depth.
"""

from __future__ import annotations

from harness.models.family import Family, Network, register_family

BASE_CHANNELS = (96, 192, 384, 768)
BLOCKS = {12: (2, 2, 6, 2), 14: (2, 2, 8, 2), 18: (3, 3, 9, 3), 36: (3, 3, 27, 3)}  # per stage


def build(depth: int, width: float, num_classes: int, in_channels: int) -> Network:
    """Return ConvNeXt with `depth` blocks."""
    from timm.layers import make_divisible
    from timm.models.convnext import ConvNeXt

    first_channels = make_divisible(BASE_CHANNELS[0] * width, 8)
    return ConvNeXt(
        in_chans=in_channels,
        num_classes=num_classes,
        depths=BLOCKS[depth],
        dims=tuple(first_channels * base // BASE_CHANNELS[0] for base in BASE_CHANNELS),
    )


register_family(
    Family(
        "convnext",
        build,
        classifier="head.fc",
        first_conv="stem.0",
        depths=tuple(BLOCKS),
        min_resolution=32,
    )
)
