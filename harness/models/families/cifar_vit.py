"""ViT-Lite (Hassani et al. 2021): a vision transformer for small images, patches of 4 pixels.

`width` multiplies the 4 heads of 64 channels, so widths come in quarters; `depth` counts blocks.
ViT-Lite-7/4 is depth 7 at width 1: 3.72 million parameters and 254 million multiply-adds at 32x32,
attention included. Position embeddings as in `vit`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.models.family import Family, register_family

if TYPE_CHECKING:
    from torch import nn


BASE_HEADS = 4
HEAD_CHANNELS = 64


def build(
    depth: int, width: float, num_classes: int, in_channels: int, resolution: int
) -> nn.Module:
    """Return ViT-Lite with `depth` blocks."""
    from timm.models.vision_transformer import VisionTransformer

    heads = round(BASE_HEADS * width)
    return VisionTransformer(
        img_size=resolution,
        patch_size=4,
        in_chans=in_channels,
        num_classes=num_classes,
        embed_dim=HEAD_CHANNELS * heads,
        depth=depth,
        num_heads=heads,
        mlp_ratio=2.0,
        qkv_bias=False,
        dynamic_img_size=True,
    )


register_family(
    Family(
        "cifar_vit",
        build,
        classifier="head",
        first_conv="patch_embed.proj",
        depths=(2, 4, 6, 7),
        min_resolution=8,
        patch=4,
        width_steps=BASE_HEADS,
    )
)
