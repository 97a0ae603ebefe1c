"""ConvNeXt (Liu et al. 2022), timm's: 96-192-384-768 channels times `width`, `depth` blocks.

Channels are multiples of 8. T is depth 18 at width 1 (28,589,128 parameters, 4.46 billion
multiply-adds at 224x224), S depth 36, B depth 36 at width 4/3, timm's Atto depth 12 at width 5/12.
No stochastic depth.
"""

from __future__ import annotations

from harness.models.family import Family, Network, register_family

BASE_CHANNELS = (96, 192, 384, 768)
BLOCKS = {12: (2, 2, 6, 2), 14: (2, 2, 8, 2), 18: (3, 3, 9, 3), 36: (3, 3, 27, 3)}


def build(depth: int, width: float, num_classes: int, in_channels: int) -> Network:
    """Return ConvNeXt with `depth` blocks."""
    from timm.layers import make_divisible
    from timm.models.convnext import ConvNeXt

    first = make_divisible(BASE_CHANNELS[0] * width, 8)
    return ConvNeXt(
        in_chans=in_channels,
        num_classes=num_classes,
        depths=BLOCKS[depth],
        dims=tuple(first * base // BASE_CHANNELS[0] for base in BASE_CHANNELS),
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
