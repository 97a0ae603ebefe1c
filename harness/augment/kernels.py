"""Ops as torch functions over a group of images, with one parameter for each image.

The functions run on any device, do not wait for it, and follow Pillow's arithmetic to the bit. Each
docstring names the Pillow function. Images are uint8 [n, 3, H, W], weights float32 [n, 1, 1, 1].
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def upload(array: NDArray[np.generic], device: torch.device) -> Tensor:
    """Return a host array as a tensor on `device`.

    A copy to a GPU goes through pinned memory, so that the host does not wait for it.
    """
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    if device.type == "cpu":
        return tensor
    return tensor.pin_memory().to(device, non_blocking=True)


def blend(low: Tensor, high: Tensor, weight: Tensor) -> Tensor:
    """`Image.blend`: low + weight (high - low) in float32, clipped to [0, 255], truncated to uint8.

    The multiplication and the addition are separate operations, because Pillow rounds after each; a
    fused multiply-add would round once.
    """
    low, high = low.float(), high.float()
    return (high - low).mul_(weight).add_(low).clamp_(0, 255).to(torch.uint8)


def look_up(images: Tensor, tables: Tensor) -> Tensor:
    """Replace each value by its entry in the table of its image: uint8 [n, 3, H, W].

    tables: uint8 [n, 1, 256], one table for all channels, or [n, 3, 256], one for each.
    """
    n, channels = tables.shape[:2]
    offsets = torch.arange(n * channels, device=images.device, dtype=torch.int32) * 256
    index = images.to(torch.int32) + offsets.view(n, channels, 1, 1)
    return tables.reshape(-1).index_select(0, index.view(-1)).view_as(images)


def _luma(images: Tensor) -> Tensor:
    """Return ITU-R 601 luma, `Image.convert("L")`, as float32 [n, 1, H, W].

    All sums are below 2^24, so float32 holds them exactly.
    """
    red, green, blue = images.float().split(1, dim=1)
    total = (red * 19595).add_(green * 38470).add_(blue * 7471).add_(32768)
    return total.div_(65536).floor_()


def color(images: Tensor, weights: Tensor) -> Tensor:
    """`ImageEnhance.Color`: blend with the grey image."""
    return blend(_luma(images), images, weights)


def contrast(images: Tensor, weights: Tensor) -> Tensor:
    """`ImageEnhance.Contrast`: blend with the rounded mean of the luma."""
    total = _luma(images).to(torch.int64).sum(dim=(1, 2, 3), keepdim=True).double()
    # The divisor is a tensor, because a GPU multiplies by the reciprocal of a Python number, which
    # may round a mean that lies on a half to the other side.
    mean = total / torch.full_like(total, images.shape[2] * images.shape[3])
    return blend(mean.add_(0.5).floor_(), images, weights)


def sharpness(images: Tensor, weights: Tensor) -> Tensor:
    """`ImageEnhance.Sharpness`: blend with `ImageFilter.SMOOTH`, which keeps the border."""
    if min(images.shape[2:]) < 3:
        return images  # Pillow does not filter an image smaller than the kernel
    high = images.float()
    rows = high[:, :, :-2] + high[:, :, 1:-1] + high[:, :, 2:]
    total = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]
    total.add_(high[:, :, 1:-1, 1:-1], alpha=4.0)
    low = high.clone()
    # A multiple of 1/13 is never halfway between whole numbers, so float32 rounds as Pillow does.
    low[:, :, 1:-1, 1:-1] = total.div_(13).add_(0.5).floor_()
    return blend(low, high, weights)


def autocontrast(images: Tensor, weights: Tensor) -> Tensor:
    """`ImageOps.autocontrast` without cut-off, blended with the input."""
    values = images.flatten(2)
    low = values.amin(dim=2, keepdim=True).double()
    high = values.amax(dim=2, keepdim=True).double()
    ramp = torch.arange(256, device=images.device, dtype=torch.float64)
    # The dividend is a tensor in float64, for the reason given in `contrast`.
    scale = torch.full_like(low, 255.0) / (high - low).clamp_(min=1.0)
    stretched = (ramp * scale + -low * scale).clamp_(0, 255).floor_()
    table = torch.where(high > low, stretched, ramp)
    return look_up(images, blend(ramp.expand_as(table), table, weights[..., 0]))


def _histograms(images: Tensor) -> Tensor:
    """Return how often each value occurs in each channel, int64 [n, 3, 256].

    It uses scatter-add, because bincount waits for the device to know the size of its result.
    """
    values = images.flatten(2).to(torch.int64)
    counts = torch.zeros(*values.shape[:2], 256, dtype=torch.int32, device=images.device)
    one = torch.ones((), dtype=torch.int32, device=images.device)
    return counts.scatter_add_(2, values, one.expand_as(values)).long()


def equalize(images: Tensor, weights: Tensor) -> Tensor:
    """`ImageOps.equalize`, blended with the input."""
    counts = _histograms(images)
    ramp = torch.arange(256, device=images.device)
    last = torch.where(counts > 0, ramp, 0).amax(dim=2, keepdim=True)
    step = (counts.sum(dim=2, keepdim=True) - counts.gather(2, last)) // 255
    before = counts.cumsum(dim=2) - counts  # pixels with a smaller value
    flat = (step // 2 + before) // step.clamp(min=1)
    table = torch.where(step > 0, flat.clamp_(max=255), ramp)
    return look_up(images, blend(ramp.expand_as(table), table, weights[..., 0]))


def inside(boxes: Tensor, height: int, width: int) -> Tensor:
    """Return which pixels lie in boxes int32 [n, 4] (left, top, right, bottom): bool [n, H, W]."""
    x = torch.arange(width, device=boxes.device)
    y = torch.arange(height, device=boxes.device)[:, None]
    left, top, right, bottom = boxes[:, :, None, None].unbind(1)
    return (x >= left) & (x < right) & (y >= top) & (y < bottom)


def box(images: Tensor, boxes: Tensor, colour: Tensor) -> Tensor:
    """Return images with `colour` [3] painted over boxes int32 [n, 4] (`Image.paste`)."""
    covered = inside(boxes, *images.shape[2:])
    return torch.where(covered[:, None], colour[:, None, None], images)


def _gather(images: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Return the values of all channels at integer positions [n, H, W]: uint8 [n, 3, H, W]."""
    n, channels, height, width = images.shape
    planes = torch.arange(n * channels, device=images.device, dtype=torch.int32) * (height * width)
    index = (y * width + x)[:, None] + planes.view(n, channels, 1, 1)
    return images.view(-1).index_select(0, index.view(-1)).view_as(images)


def warp_nearest(images: Tensor, maps: Tensor, colour: Tensor) -> Tensor:
    """`Image.transform(AFFINE, NEAREST)` by maps int32 [n, 6] in 16.16 fixed point."""
    height, width = images.shape[2:]
    a, b, c, d, e, f = maps[:, :, None, None].unbind(1)
    columns = torch.arange(width, device=images.device, dtype=torch.int32)
    rows = torch.arange(height, device=images.device, dtype=torch.int32)[:, None]
    x = (a * columns + b * rows + c) >> 16
    y = (d * columns + e * rows + f) >> 16
    is_inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    values = _gather(images, x.clamp_(0, width - 1), y.clamp_(0, height - 1))
    return torch.where(is_inside[:, None], values, colour[:, None, None])


def warp_bilinear(images: Tensor, maps: Tensor, colour: Tensor) -> Tensor:
    """`Image.transform(AFFINE, BILINEAR)` by AFFINE data float64 [n, 6], in double as Pillow does.

    A pixel whose position lies outside the image has exactly the fill colour. For the others,
    neighbours are clamped to the border, and the result is truncated.
    """
    height, width = images.shape[2:]
    a, b, c, d, e, f = maps[:, :, None, None].unbind(1)
    columns = torch.arange(width, device=images.device, dtype=torch.float64) + 0.5
    rows = (torch.arange(height, device=images.device, dtype=torch.float64) + 0.5)[:, None]
    x, y = a * columns + b * rows + c, d * columns + e * rows + f
    is_inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    x, y = x - 0.5, y - 0.5
    x0, y0 = x.floor(), y.floor()
    dx, dy = (x - x0)[:, None], (y - y0)[:, None]
    left, right = (v.int().clamp_(0, width - 1) for v in (x0, x0 + 1))
    top, bottom = (v.int().clamp_(0, height - 1) for v in (y0, y0 + 1))

    def row(y: Tensor) -> Tensor:
        start, end = _gather(images, left, y).double(), _gather(images, right, y).double()
        return (end - start).mul_(dx).add_(start)

    upper = row(top)
    values = (row(bottom) - upper).mul_(dy).add_(upper).to(torch.uint8)
    return torch.where(is_inside[:, None], values, colour[:, None, None])
