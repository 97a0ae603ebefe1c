"""Random erasing, mixup and cutmix on normalised images, keyed by sample like everything else.

Erasing: Zhong et al. 2020 (arXiv 1708.04896); mixup: Zhang et al. 2018 (1710.09412); cutmix: Yun et
al. 2019 (1905.04899).

Who is mixed with whom: neighbours in the global batch, positions (0, 1), (2, 3), ... An epoch's
order is random, so the pairs are; and as long as every rank takes a contiguous part with an even
number of samples, a pair never lies on two ranks, so that 1 and 8 ranks mix the same images. An odd
part is refused. Each of the two draws its own weight and box from its own key.
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

_AREA = (0.02, 1 / 3)  # of the image, and
_RATIO = (0.3, 1 / 0.3)  # height to width: torchvision's and timm's defaults
_TRIES = 10


def erase(
    images: Tensor, indices: NDArray[np.int64], probability: float, seed: int, epoch: int
) -> Tensor:
    """Float images [N, 3, H, W] with a random box set to 0 (the mean) in a share of them.

    A box that does not fit is drawn again, up to ten times; then the image stays as it is.
    """
    height, width = images.shape[2:]
    boxes = erasing_boxes(indices, (height, width), probability, seed, epoch)
    covered = inside(upload(boxes, images.device), height, width)
    return images.masked_fill(covered[:, None], 0.0)


def erasing_boxes(
    indices: NDArray[np.int64], size: tuple[int, int], probability: float, seed: int, epoch: int
) -> NDArray[np.int32]:
    """Boxes int32 [N, 4] (left, top, right, bottom) in images of `size` (height, width)."""
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
    chosen = boxes[np.arange(len(boxes)), fits.argmax(axis=1)]
    erased = (draws[:, 0] < probability) & fits.any(axis=1)
    return np.where(erased[:, None], chosen, 0).astype(np.int32)


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
    """Each sample mixed with its neighbour, and targets float32 [N, num_classes] that sum to 1.

    `mixup` and `cutmix` are the parameters of Beta(a, a), 0 for off; where both are on, each sample
    takes one of the two with probability one half.

    Raises:
        UserError: an odd number of samples.
    """
    if len(images) % 2:
        raise UserError(
            f"mixup and cutmix pair neighbours, and {len(images)} samples on one rank are odd: "
            "choose a batch size that is even on every rank."
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
    """For each sample its own weight [N] in mixup (1 where it is cut) and its box of cutmix [N, 4].

    A box's sides are sqrt(1 - weight) of the image's, about a uniform centre, clipped.
    """
    from scipy.special import betaincinv  # the inverse distribution: one uniform draw a sample

    words = rng.bits(seed, "mix", epoch, indices, 4)
    cut = words[:, 0] >> 31 == 1 if mixup and cutmix else np.full(len(words), bool(cutmix))
    shape = np.where(cut, cutmix, mixup)
    weights = betaincinv(shape, shape, (words[:, 1] + 0.5) * 2.0**-32)
    height, width = size
    half = np.sqrt(1.0 - weights)[:, None] * np.array([width, height]) / 2
    centre = np.stack([rng.scale(words[:, 2], width), rng.scale(words[:, 3], height)], axis=-1)
    corners = np.concatenate([np.rint(centre - half), np.rint(centre + half)], axis=1)
    boxes = np.clip(corners, 0, [width, height, width, height])
    boxes = np.where(cut[:, None], boxes, 0).astype(np.int32)
    return np.where(cut, 1.0, weights).astype(np.float32), boxes
