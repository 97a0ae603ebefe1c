"""Vision transformers: ViT (Dosovitskiy et al. 2021), and ViT-Lite (Hassani et al. 2021).

`width` multiplies the heads, of 64 channels each; `depth` counts blocks. Position embeddings are
learned, as many as the resolution has patches, and interpolated at other resolutions.

`vit` has patches of 16 pixels and 6 heads at width 1 (ViT-S/16 of DeiT, Touvron et al. 2021): Ti is
width 0.5, S 1, B 2, so widths come in sixths. ViT-S/16 has 22,050,664 parameters and 4.60 billion
multiply-adds at 224x224, attention included.

`cifar_vit` is ViT-Lite, for small images: patches of 4 pixels and 4 heads at width 1, so widths
come in quarters. ViT-Lite-7/4 is depth 7 at width 1: 3.72 million parameters and 254 million
multiply-adds at 32x32, attention included.
"""

from __future__ import annotations

from typing import Any

from harness.models.family import Family, Network, register_family

HEAD_CHANNELS = 64
HEADS, PATCH = 6, 16
LITE_HEADS, LITE_PATCH = 4, 4


def _vision_transformer(heads: int, **options: Any) -> Network:
    from timm.models.vision_transformer import VisionTransformer

    return VisionTransformer(
        embed_dim=HEAD_CHANNELS * heads, num_heads=heads, dynamic_img_size=True, **options
    )


def build(depth: int, width: float, num_classes: int, in_channels: int, resolution: int) -> Network:
    """Return ViT with `depth` blocks."""
    return _vision_transformer(
        heads=round(HEADS * width),
        img_size=resolution,
        patch_size=PATCH,
        in_chans=in_channels,
        num_classes=num_classes,
        depth=depth,
    )


def build_lite(
    depth: int, width: float, num_classes: int, in_channels: int, resolution: int
) -> Network:
    """Return ViT-Lite with `depth` blocks."""
    return _vision_transformer(
        heads=round(LITE_HEADS * width),
        img_size=resolution,
        patch_size=LITE_PATCH,
        in_chans=in_channels,
        num_classes=num_classes,
        depth=depth,
        mlp_ratio=2.0,
        qkv_bias=False,
    )


register_family(
    Family(
        "vit",
        build,
        classifier="head",
        first_conv="patch_embed.proj",
        depths=(6, 12, 24),
        min_resolution=32,
        patch=PATCH,
        width_steps=HEADS,
    )
)
register_family(
    Family(
        "cifar_vit",
        build_lite,
        classifier="head",
        first_conv="patch_embed.proj",
        depths=(2, 4, 6, 7),
        min_resolution=8,
        patch=LITE_PATCH,
        width_steps=LITE_HEADS,
    )
)
