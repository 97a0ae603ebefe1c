"""Random erasing, mixup and cutmix on normalised images, drawn for each sample by its id.

Erasing: Zhong et al. 2020 (arXiv 1708.04896); mixup: Zhang et al. 2018 (arXiv 1710.09412); cutmix:
Yun et al. 2019 (arXiv 1905.04899).

Neighbours in the global batch are mixed: positions (0, 1), (2, 3), ... The order of an epoch is
random, so the pairs are random too. Every rank takes a contiguous part of the batch with an even
number of samples (an odd number is refused). So no pair is split between ranks, and 1 and 8 ranks
mix the same images. Each sample of a pair draws its own weight and box.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from harness import rng
from harness.augment.kernels import inside, upload
from harness.errors import UserError

# An erased box has the defaults of RandomErasing in timm 1.0.31. (torchvision 0.29 rounds 1/3 to
# 0.33, and 1/0.3 to 3.3.)
_AREA = (0.02, 1 / 3)  # share of the image
_RATIO = (0.3, 1 / 0.3)  # height to width
_TRIES = 10


def erase(
    images: Tensor, indices: NDArray[np.int64], probability: float, seed: int, epoch: int
) -> Tensor:
    """Return float images [N, 3, H, W] in which a random box was set to 0, each with `probability`.

    Zero is the mean, because the images are normalised. If none of ten drawn boxes fits into the
    image, the image is left unchanged.
    """
    height, width = images.shape[2:]
    boxes = erasing_boxes(indices, (height, width), probability, seed, epoch)
    covered = inside(upload(boxes, images.device), height, width)
    return images.masked_fill(covered[:, None], 0.0)


def erasing_boxes(
    indices: NDArray[np.int64], size: tuple[int, int], probability: float, seed: int, epoch: int
) -> NDArray[np.int32]:
    """Return boxes int32 [N, 4] (left, top, right, bottom) in images of `size` (height, width).

    A sample that is not erased has an empty box.
    """
    draws = rng.uniform(seed, "erasing", epoch, indices, 1 + 4 * _TRIES)
    area, ratio, x, y = draws[:, 1:].reshape(-1, _TRIES, 4).transpose(2, 0, 1)
    low, high = np.log(_RATIO)
    pixels = (_AREA[0] + (_AREA[1] - _AREA[0]) * area) * size[0] * size[1]
    shape = np.exp(low + (high - low) * ratio)
    heights, widths = np.rint(np.sqrt(pixels * shape)), np.rint(np.sqrt(pixels / shape))
    fits = (heights < size[0]) & (widths < size[1])
    lefts = np.floor(x * (size[1] - widths + 1))
    tops = np.floor(y * (size[0] - heights + 1))
    boxes = np.stack([lefts, tops, lefts + widths, tops + heights], axis=-1)
    first_fit = boxes[np.arange(len(boxes)), fits.argmax(axis=1)]
    erased = (draws[:, 0] < probability) & fits.any(axis=1)
    return np.where(erased[:, None], first_fit, 0).astype(np.int32)


def mix(
    images: Tensor,
    labels: Tensor,
    indices: NDArray[np.int64],
    *,
    mixup: float,
    cutmix: float,
    num_classes: int,
    seed: int,
    epoch: int,
) -> tuple[Tensor, Tensor]:
    """Return samples mixed with their neighbours, and targets float32 [N, num_classes].

    The targets of a sample sum to 1. mixup, cutmix: the parameter a of Beta(a, a), 0 for off. If
    both are on, each sample gets one of the two with probability one half.

    Raises:
        UserError: an odd number of samples.
    """
    if len(images) % 2:
        raise UserError(
            f"mixup and cutmix pair neighbours, and {len(images)} samples on one rank are an odd "
            "number: choose a batch size that is even on every rank."
        )
    height, width = images.shape[2:]
    weights, boxes = mixing(indices, (height, width), mixup, cutmix, seed, epoch)
    partners = images.unflatten(0, (-1, 2)).flip(1).flatten(0, 1)
    share = upload(weights[:, None, None, None], images.device)
    mixed = share * images + (1.0 - share) * partners
    covered = inside(upload(boxes, images.device), height, width)
    mixed = torch.where(covered[:, None], partners, mixed)

    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) / max(1, height * width)
    own = upload((weights * (1.0 - area)).astype(np.float32)[:, None], images.device)
    classes = functional.one_hot(labels, num_classes).float()
    others = classes.unflatten(0, (-1, 2)).flip(1).flatten(0, 1)
    return mixed, own * classes + (1.0 - own) * others


def mixing(
    indices: NDArray[np.int64],
    size: tuple[int, int],
    mixup: float,
    cutmix: float,
    seed: int,
    epoch: int,
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Return for each sample its weight in mixup, float32 [N], and its cutmix box, int32 [N, 4].

    A sample of cutmix has weight 1, and a sample of mixup has an empty box. For a draw w from
    Beta(cutmix, cutmix), the sides of a box are sqrt(1 - w) times those of the image. Its centre is
    uniform in the image, and the box is clipped to the image.
    """
    # The inverse of Beta's distribution function needs one uniform number for each sample.
    from scipy.special import betaincinv

    words = rng.bits(seed, "mix", epoch, indices, 4)
    is_cut = words[:, 0] >> 31 == 1 if mixup and cutmix else np.full(len(words), bool(cutmix))
    a = np.where(is_cut, cutmix, mixup)
    weights = betaincinv(a, a, (words[:, 1] + 0.5) * 2.0**-32)
    height, width = size
    half = np.sqrt(1.0 - weights)[:, None] * np.array([width, height]) / 2
    centre = np.stack([rng.scale(words[:, 2], width), rng.scale(words[:, 3], height)], axis=-1)
    corners = np.concatenate([np.rint(centre - half), np.rint(centre + half)], axis=1)
    boxes = np.clip(corners, 0, [width, height, width, height])
    boxes = np.where(is_cut[:, None], boxes, 0).astype(np.int32)
    return np.where(is_cut, 1.0, weights).astype(np.float32), boxes
