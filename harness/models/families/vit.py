"""Vision transformer of 16-pixel patches (Dosovitskiy et al. 2021; DeiT, Touvron et al. 2021).

`width` multiplies the 6 heads of 64 channels of ViT-S/16: Ti is width 0.5, S 1, B 2, so widths come
in sixths. `depth` counts blocks. Position embeddings are learned, as many as the resolution has
patches, and interpolated at other resolutions. ViT-S/16 has 22,050,664 parameters and 4.60 billion
multiply-adds at 224x224, attention included.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.models.family import Family, register_family

if TYPE_CHECKING:
    from torch import nn


BASE_HEADS = 6
HEAD_CHANNELS = 64


def build(
    depth: int, width: float, num_classes: int, in_channels: int, resolution: int
) -> nn.Module:
    """Return ViT with `depth` blocks."""
    from timm.models.vision_transformer import VisionTransformer

    heads = round(BASE_HEADS * width)
    return VisionTransformer(
        img_size=resolution,
        in_chans=in_channels,
        num_classes=num_classes,
        embed_dim=HEAD_CHANNELS * heads,
        depth=depth,
        num_heads=heads,
        dynamic_img_size=True,
    )


register_family(
    Family(
        "vit",
        build,
        classifier="head",
        first_conv="patch_embed.proj",
        depths=(6, 12, 24),
        min_resolution=32,
        patch=16,
        width_steps=BASE_HEADS,
    )
)
