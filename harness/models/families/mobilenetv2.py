"""MobileNetV2 (Sandler et al. 2018) from timm, and a version for small images.

`width` is the paper's multiplier. Channels are multiples of 8. The last convolution keeps its 1280
channels below width 1, as in the paper. `mobilenetv2` at width 1 has 3,504,872 parameters and 301
million multiply-adds at 224x224. In `cifar_mobilenetv2` the stem and the second stage keep the
resolution. At width 1 it has 2,236,682 parameters for 10 classes and 88 million multiply-adds at
32x32.
"""

from __future__ import annotations

from harness.models.family import Family, Network, register_family


def build(depth: None, width: float, num_classes: int, in_channels: int) -> Network:
    """Return the network, from timm's tables."""
    from timm.models.efficientnet import _gen_mobilenet_v2

    return _gen_mobilenet_v2(
        "mobilenetv2_100", channel_multiplier=width, num_classes=num_classes, in_chans=in_channels
    )


def build_small(depth: None, width: float, num_classes: int, in_channels: int) -> Network:
    """Return the network with a total stride of 8 instead of 32."""
    from torch import nn

    model = build(depth, width, num_classes, in_channels)
    for name in ("conv_stem", "blocks.1.0.conv_dw"):
        conv = model.get_submodule(name)
        assert isinstance(conv, nn.Conv2d)
        conv.stride = (1, 1)
    return model


for _name, _build, _min_resolution in (
    ("mobilenetv2", build, 17),
    ("cifar_mobilenetv2", build_small, 8),
):
    register_family(
        Family(
            _name,
            _build,
            classifier="classifier",
            first_conv="conv_stem",
            min_resolution=_min_resolution,
            removable_channels=True,
            nested_widths=True,
        )
    )
