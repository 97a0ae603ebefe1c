"""Vision transformers: ViT (Dosovitskiy et al. 2021), and ViT-Lite (Hassani et al. 2021).

`width` multiplies the number of attention heads, each of which has 64 channels. `depth` is the
number of blocks. The model learns a position embedding for each patch of the data set's resolution,
and interpolates the embeddings at other resolutions.

`vit` has patches of 16 pixels and 6 heads at width 1 (ViT-S/16 of DeiT, Touvron et al. 2021), so
widths are multiples of 1/6: Ti is width 0.5, S width 1, B width 2. ViT-S/16 has 22,050,664
parameters and 4.60 billion multiply-adds at 224x224, including attention.

`cifar_vit` is ViT-Lite, for small images. It has patches of 4 pixels and 4 heads at width 1, so
widths are multiples of 1/4. ViT-Lite-7/4 is depth 7 at width 1. It has 3.72 million parameters and
254 million multiply-adds at 32x32, including attention.
"""

from __future__ import annotations

import functools
from typing import Any

from harness.models.family import Family, Network, register_family

HEAD_CHANNELS = 64
LITE: dict[str, Any] = {"mlp_ratio": 2.0, "qkv_bias": False}


def _build(
    base_heads: int,
    patch: int,
    depth: int,
    width: float,
    num_classes: int,
    in_channels: int,
    resolution: int,
    **options: Any,
) -> Network:
    """Return a transformer of `depth` blocks, with `base_heads` attention heads at width 1."""
    from timm.models.vision_transformer import VisionTransformer

    heads = round(base_heads * width)
    return VisionTransformer(
        img_size=resolution,
        patch_size=patch,
        in_chans=in_channels,
        num_classes=num_classes,
        embed_dim=HEAD_CHANNELS * heads,
        depth=depth,
        num_heads=heads,
        dynamic_img_size=True,
        **options,
    )


for _name, _heads, _patch, _min_resolution, _depths, _options in (
    ("vit", 6, 16, 32, (6, 12, 24), {}),
    ("cifar_vit", 4, 4, 8, (2, 4, 6, 7), LITE),
):
    register_family(
        Family(
            _name,
            functools.partial(_build, _heads, _patch, **_options),
            classifier="head",
            first_conv="patch_embed.proj",
            depths=_depths,
            min_resolution=_min_resolution,
            patch=_patch,
            width_steps=_heads,
        )
    )
