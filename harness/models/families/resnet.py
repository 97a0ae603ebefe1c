"""ResNet for ImageNet (He et al. 2016, version 1.5 as in timm), and with a stem for small images.

The stages have 64-128-256-512 channels times `width`, rounded to multiples of 8, and the stem has
as many as the first stage. Bottleneck blocks (depth 50 and above) have four times as many output
channels. ResNet-50 at width 1 has 25,557,032 parameters and 4.09 billion multiply-adds at 224x224.
The last batch norm of each block starts at zero (Goyal et al. 2017, section 5.1).

`cifar_stem_resnet` has a stem of one 3x3 convolution without pooling. It is the "ResNet-18" of most
CIFAR papers: 11,173,962 parameters for 10 classes at width 1 and 0.56 billion multiply-adds at
32x32. He et al.'s own network for CIFAR is `cifar_resnet`.
"""

from __future__ import annotations

import functools
from typing import Any

from harness.models.family import Family, Network, register_family

BASE_CHANNELS = (64, 128, 256, 512)
BLOCKS = {  # number of blocks in each stage, by depth
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}


def build(
    depth: int, width: float, num_classes: int, in_channels: int, small_images: bool = False
) -> Network:
    """Return ResNet-`depth`; with `small_images`, its stem keeps the resolution."""
    from timm.layers import make_divisible
    from timm.models.resnet import BasicBlock, Bottleneck, ResNet, make_blocks
    from torch import nn

    block: Any = Bottleneck if depth >= 50 else BasicBlock
    channels = tuple(make_divisible(base * width, 8) for base in BASE_CHANNELS)
    stem = channels[0]
    # timm's stem has 64 channels at any width, so the stem and the stages are built here.
    model = ResNet(block, (0, 0, 0, 0), num_classes, in_channels, channels=channels)
    kernel, stride = (3, 1) if small_images else (7, 2)
    parts: list[tuple[str, nn.Module]] = [
        ("conv1", nn.Conv2d(in_channels, stem, kernel, stride, kernel // 2, bias=False)),
        ("bn1", nn.BatchNorm2d(stem)),
    ]
    if small_images:
        parts.append(("maxpool", nn.Identity()))
    stages, _ = make_blocks(
        (block,) * 4,
        channels,
        BLOCKS[depth],
        stem,
        cardinality=1,
        base_width=64,
        act_layer=nn.ReLU,
        norm_layer=nn.BatchNorm2d,
        aa_layer=None,
    )
    for name, part in [*parts, *stages]:
        setattr(model, name, part)
    model.init_weights()
    return model


for _name, _build, _depths, _min_resolution in (
    ("resnet", build, tuple(BLOCKS), 17),
    ("cifar_stem_resnet", functools.partial(build, small_images=True), (18, 34, 50), 8),
):
    register_family(
        Family(
            _name,
            _build,
            classifier="fc",
            first_conv="conv1",
            depths=_depths,
            min_resolution=_min_resolution,
            removable_channels=True,
            nested_widths=True,
            conv_norm_pairs=True,
        )
    )
