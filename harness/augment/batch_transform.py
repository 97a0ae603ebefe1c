"""Turn a batch of uint8 images into the input of the model.

The steps of training are: pad and crop, flip, policy, normalise, erase, mix. Evaluation only
normalises. Every draw is a pure function of (seed, epoch, sample id), so the result does not depend
on how samples are divided into batches. With mixup or cutmix, pairs of neighbours must stay
together (see `mix.py`). The host does not wait for the device.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from harness import rng
from harness.augment import torch_executor
from harness.augment.executors import Executor, apply, check_images
from harness.augment.kernels import upload
from harness.augment.mix import erase, mix
from harness.augment.policy import Policy
from harness.errors import UserError

Ids = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class BatchTransform:
    """The steps before and after the policy of a training sample.

    crop_padding: black pixels added on each side before a crop of the original size. flip: left to
    right with probability one half. erasing: probability that a random box is set to the mean.
    mixup, cutmix: the parameter a of Beta(a, a), 0 for off. mean, std: per channel, of images
    scaled to [0, 1].
    """

    crop_padding: int = 0
    flip: bool = False
    erasing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    mean: tuple[float, ...]
    std: tuple[float, ...]


def train_batch(
    images_u8: Tensor,
    labels: Tensor,
    indices: Ids,
    *,
    policy: Policy,
    transform: BatchTransform,
    seed: int,
    epoch: int,
    num_classes: int,
    dtype: torch.dtype = torch.float32,
    channels_last: bool = False,
    executor: Executor = torch_executor.run,
) -> tuple[Tensor, Tensor]:
    """Return augmented, normalised images [N, 3, H, W] of `dtype`, and their targets.

    images_u8: uint8 [N, 3, H, W]; labels: int64 [N]; indices: sample ids [N] on the host; executor:
    from `choose_executor`, for the policy. Targets are the labels, or float32 [N, num_classes] with
    mixup or cutmix.

    Raises:
        UserError: images that are not uint8 [N, 3, H, W], or different numbers of images, labels
            and ids.
    """
    if not len(images_u8) == len(labels) == len(indices):
        raise UserError(
            f"a batch has {len(images_u8)} images, {len(labels)} labels and {len(indices)} sample "
            "ids: give one of each for every sample."
        )
    check_images(images_u8)
    images_u8 = crop_and_flip(images_u8, indices, transform, seed, epoch)
    images_u8 = apply(images_u8, policy.draw(seed, epoch, indices), executor)
    images, targets = normalise(images_u8, transform), labels
    if transform.erasing:
        images = erase(images, indices, transform.erasing, seed, epoch)
    if transform.mixup or transform.cutmix:
        images, targets = mix(
            images,
            labels,
            indices,
            mixup=transform.mixup,
            cutmix=transform.cutmix,
            num_classes=num_classes,
            seed=seed,
            epoch=epoch,
        )
    return _cast(images, dtype, channels_last), targets


def eval_batch(
    images_u8: Tensor,
    *,
    transform: BatchTransform,
    dtype: torch.dtype = torch.float32,
    channels_last: bool = False,
) -> Tensor:
    """Return normalised images [N, 3, H, W] of `dtype`; evaluation does nothing else."""
    check_images(images_u8)
    return _cast(normalise(images_u8, transform), dtype, channels_last)


def crop_and_flip(
    images: Tensor, indices: Ids, transform: BatchTransform, seed: int, epoch: int
) -> Tensor:
    """Return images uint8 [N, 3, H, W] after a random crop of the padded image and a random flip.

    Without `crop_padding` or `flip` the step is left out.
    """
    if transform.crop_padding:
        height, width = images.shape[2:]
        positions = 2 * transform.crop_padding + 1  # of a window, along each side
        drawn = rng.integers(seed, "crop", epoch, indices, 2, positions)  # top, left
        corners = upload(drawn, images.device)
        padded = functional.pad(images, (transform.crop_padding,) * 4)
        # [N, 3, positions, positions, H, W]
        windows = padded.unfold(2, height, 1).unfold(3, width, 1)
        samples = torch.arange(len(images), device=images.device)
        images = windows[samples, :, corners[:, 0], corners[:, 1]]
    if transform.flip:
        is_flipped = rng.bits(seed, "flip", epoch, indices, 1) >> 31 == 1
        flipped = upload(is_flipped[:, :, None, None], images.device)
        images = torch.where(flipped, images.flip(3), images)
    return images


def normalise(images_u8: Tensor, transform: BatchTransform) -> Tensor:
    """Return (images / 255 - mean) / std as float32 [N, 3, H, W]."""
    mean, std = np.asarray(transform.mean, np.float64), np.asarray(transform.std, np.float64)
    scale = upload((1.0 / (255.0 * std)).astype(np.float32)[:, None, None], images_u8.device)
    shift = upload((-mean / std).astype(np.float32)[:, None, None], images_u8.device)
    return images_u8.float().mul_(scale).add_(shift)


def _cast(images: Tensor, dtype: torch.dtype, channels_last: bool) -> Tensor:
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return images.to(dtype).contiguous(memory_format=layout)
