"""CIFAR's ResNet (He et al. 2016, section 4.2): 6n+2 layers, 16-32-64 channels times `width`.

Shortcuts are projections wherever the shape changes (option B), so ResNet-20 at width 1 has
272,474 parameters for 10 classes and 40.8 million multiply-adds at 32x32.
"""

from __future__ import annotations

from harness.models.family import Family, Network, register_family, scale_channels

BASE_CHANNELS = (16, 32, 64)


def build(depth: int, width: float, num_classes: int, in_channels: int) -> Network:
    """Return ResNet-`depth`."""
    from harness.models.residual import CifarResNet

    channels = tuple(scale_channels(base, width) for base in BASE_CHANNELS)
    return CifarResNet((depth - 2) // 6, channels, num_classes, in_channels)


register_family(
    Family(
        "cifar_resnet",
        build,
        classifier="fc",
        first_conv="conv1",
        depths=(8, 20, 32, 56),
        removable_channels=True,
        nested_widths=True,
        conv_norm_pairs=True,
    )
)
