"""Wide ResNet for CIFAR (Zagoruyko and Komodakis 2016), 6n+4 layers.

`width` is the paper's widening factor k, which multiplies 16-32-64 channels. The stem has 16
channels at any k. There is no dropout. WRN-28-10 has 36.5 million parameters and 5.24 billion
multiply-adds at 32x32.
"""

from __future__ import annotations

from harness.models.family import Family, Network, register_family, scale_channels

BASE_CHANNELS = (16, 32, 64)


def build(depth: int, width: float, num_classes: int, in_channels: int) -> Network:
    """Return WRN-`depth`-`width`."""
    from harness.models.residual import WideResNet

    channels = tuple(scale_channels(base, width) for base in BASE_CHANNELS)
    stem = BASE_CHANNELS[0]
    return WideResNet((depth - 4) // 6, stem, channels, num_classes, in_channels)


register_family(
    Family(
        "wide_resnet",
        build,
        classifier="fc",
        first_conv="conv1",
        depths=(10, 16, 22, 28, 40),
        removable_channels=True,
        conv_norm_pairs=True,
        # `nested_widths` is False: only at width 1 the first block has no projection
    )
)
