"""Apply a plan to a batch: `apply(images_u8, plan)`, pure, on the device the images are on.

On a CPU the loops are compiled by Numba where it is there (it comes with FFCV); otherwise, and on a
GPU, plain torch does the same to the bit. Nothing here draws a random number, waits for the device
or changes the input.
"""

from __future__ import annotations

import torch
from torch import Tensor

from harness.augment import kernels
from harness.augment.lower import lower
from harness.augment.plan import Plan
from harness.errors import UserError


def apply(images: Tensor, plan: Plan) -> Tensor:
    """The images after their ops.

    images: uint8 [N, 3, H, W], any strides (channels_last, views); plan: for N samples.
    Returns uint8 [N, 3, H, W] in new, contiguous memory on the same device.

    Raises:
        UserError: images of another type or shape, or a plan for another number of samples.
    """
    if not isinstance(images, Tensor) or images.dtype != torch.uint8:
        kind = images.dtype if isinstance(images, Tensor) else type(images).__name__
        raise UserError(
            f"augmentation takes uint8 images from 0 to 255, not {kind}: apply it before they are "
            "scaled to floats."
        )
    if images.ndim != 4 or images.shape[1] != 3:
        raise UserError(
            f"augmentation takes images of shape [N, 3, height, width], not {list(images.shape)}: "
            "repeat grey images to three channels, and put channels second."
        )
    if len(plan) != len(images):
        raise UserError(f"a plan for {len(plan)} samples does not fit {len(images)} images.")
    if images.numel() == 0 or plan.layers == 0:
        return images.clone(memory_format=torch.contiguous_format)
    lowered = lower(plan, images.shape[2], images.shape[3])
    return kernels.run(images, lowered, plan.fill, plan.interpolation)
