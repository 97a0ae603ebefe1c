"""The executor for trainings on a GPU: each layer of a plan is one kernel of Triton.

A program of Triton applies the op of one sample to a block of that sample's pixels. So a layer
reads and writes every value once, although its samples have different ops. For ops whose table
depends on the image (Contrast, AutoContrast, Equalize), another kernel computes the tables before
the layer runs. The results equal those of `kernels.py` to the bit: multiply and add are not fused,
and Contrast's mean and the division by 13 in Sharpness's filter use integers. One copy from pinned
memory sends all parameters.

Without a GPU the same code runs in Triton's interpreter (`TRITON_INTERPRET=1`); the tests use it to
compare the pixels with those of `torch_executor.py`.
"""

from __future__ import annotations

import numpy as np
import torch
import triton
import triton.language as tl
from numpy.typing import NDArray
from torch import Tensor

from harness.augment.lower import Lowered
from harness.augment.ops import Colour, Kind

_BLOCK = 1024  # pixels of a program
_ALIGNMENT = 16  # each parameter starts at a multiple of this many bytes in the copy

_TABLE = tl.constexpr(int(Kind.TABLE))
_WARP = tl.constexpr(int(Kind.WARP))
_COLOR = tl.constexpr(int(Kind.COLOR))
_CONTRAST = tl.constexpr(int(Kind.CONTRAST))
_AUTOCONTRAST = tl.constexpr(int(Kind.AUTOCONTRAST))
_EQUALIZE = tl.constexpr(int(Kind.EQUALIZE))
_SHARPNESS = tl.constexpr(int(Kind.SHARPNESS))
_BOX = tl.constexpr(int(Kind.BOX))
_DEPENDS_ON_IMAGE = np.isin(np.arange(len(Kind)), (Kind.CONTRAST, Kind.AUTOCONTRAST, Kind.EQUALIZE))


def run(images: Tensor, lowered: Lowered, fill: Colour, interpolation: str) -> Tensor:
    """Return images uint8 [N, 3, H, W] after all layers, in new contiguous memory.

    No op may be of `Kind.KERNEL`.
    """
    source = images.contiguous()
    n, height, width = len(source), *source.shape[2:]
    # Each op whose table depends on the image gets a slot in `image_tables`, layer by layer.
    needs_table = _DEPENDS_ON_IMAGE[lowered.kinds]
    table_positions = np.flatnonzero(needs_table).astype(np.int32)
    host_slots = lowered.slots.copy()
    host_slots[needs_table] = np.arange(len(table_positions))
    kinds, weights, slots, tables, maps, boxes, colour, positions = _send(
        source.device,
        lowered.kinds,
        lowered.weights,
        host_slots,
        lowered.tables,
        lowered.maps,
        lowered.boxes,
        np.array(fill, dtype=np.uint8),
        table_positions,
    )
    # Layers must not share slots: the kernel could write the next layer's tables while a slow block
    # of this layer still reads its own.
    size = (len(table_positions), 3, 256)
    image_tables = torch.empty(size, dtype=torch.uint8, device=source.device)
    pixels, first_slot, bilinear = height * width, 0, interpolation == "bilinear"
    with torch.cuda.device_of(source):
        for layer, count in enumerate(needs_table.sum(axis=1).tolist()):
            target = torch.empty_like(source)
            if count:
                _compute_tables[(count, 3)](
                    source, image_tables, positions, kinds, weights, first_slot, n, pixels,
                    BLOCK=4 * _BLOCK, num_warps=8, enable_fp_fusion=False,
                )  # fmt: skip
            _layer[(n * triton.cdiv(pixels, _BLOCK),)](
                source, target, kinds, weights, slots, tables, image_tables, maps, boxes, colour,
                layer * n, height, width,
                BILINEAR=bilinear, BLOCK=_BLOCK, num_warps=8 if bilinear else 4,
                enable_fp_fusion=False,
            )  # fmt: skip
            source, first_slot = target, first_slot + count
    return source


def _send(device: torch.device, *arrays: NDArray[np.generic]) -> list[Tensor]:
    """Return the arrays on `device`, sent by one copy that the host does not wait for."""
    sizes = [-(-array.nbytes // _ALIGNMENT) * _ALIGNMENT for array in arrays]
    packed = torch.empty(sum(sizes), dtype=torch.uint8, pin_memory=device.type == "cuda")
    buffer, start = packed.numpy(), 0
    for array, size in zip(arrays, sizes):
        flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        buffer[start : start + len(flat)] = flat
        start += size
    sent = packed.to(device, non_blocking=True)
    return [
        part[: array.nbytes].view(_TYPES[array.dtype.name])
        for part, array in zip(sent.split(sizes), arrays)
    ]


_TYPES = {
    "uint8": torch.uint8, "int32": torch.int32, "float32": torch.float32, "float64": torch.float64
}  # fmt: skip


@triton.jit
def _blend(low, high, weight):  # type: ignore[no-untyped-def]
    value = low + weight * (high - low)
    return tl.minimum(tl.maximum(value, 0.0), 255.0).to(tl.int32).to(tl.uint8)


@triton.jit
def _luma(image, k, pixels, inside):  # type: ignore[no-untyped-def]
    red = tl.load(image + k, mask=inside, other=0).to(tl.int32)
    green = tl.load(image + pixels + k, mask=inside, other=0).to(tl.int32)
    blue = tl.load(image + 2 * pixels + k, mask=inside, other=0).to(tl.int32)
    return (red * 19595 + green * 38470 + blue * 7471 + 32768) >> 16


# Triton compiles separate variants of a kernel for integer arguments that are 1 or divisible by 16,
# and for aligned pointers. `do_not_specialize` prevents this for the arguments that differ between
# layers and batches. A pointer always is the beginning of an array, so its alignment does not vary.
# A training therefore compiles each kernel once.
@triton.jit(do_not_specialize=["first_slot", "n"])
def _compute_tables(  # type: ignore[no-untyped-def]
    source, tables, positions, kinds, weights, first_slot, n, pixels, BLOCK: tl.constexpr
):
    """Write the table of one channel of one sample to tables uint8 [slots, 3, 256].

    positions: int32 [slots], for each table the index of its op in the flattened [layers, N].
    """
    slot, channel = first_slot + tl.program_id(0), tl.program_id(1)
    position = tl.load(positions + slot)
    sample = (position % n).to(tl.int64)
    kind = tl.load(kinds + position).to(tl.int32)
    weight = tl.load(weights + position)
    image = source + sample * 3 * pixels
    ramp = tl.arange(0, 256)
    blended = ramp.to(tl.float32)
    if kind == _CONTRAST:
        total = tl.zeros((BLOCK,), dtype=tl.int64)
        for start in range(0, pixels, BLOCK):
            k = start + tl.arange(0, BLOCK)
            total += tl.where(k < pixels, _luma(image, k, pixels, k < pixels), 0)
        mean = (2 * tl.sum(total, axis=0) + pixels) // (2 * pixels)  # rounded half up
        low = tl.zeros((256,), dtype=tl.float32) + mean.to(tl.float32)
        table = _blend(low, blended, weight)
    else:
        counts = tl.zeros((256,), dtype=tl.int32)
        for start in range(0, pixels, BLOCK):
            k = start + tl.arange(0, BLOCK)
            values = tl.load(image + channel * pixels + k, mask=k < pixels, other=0)
            counts += tl.histogram(values.to(tl.int32), 256)
        # The histograms counted masked pixels as value 0.
        padding = tl.cdiv(pixels, BLOCK) * BLOCK - pixels
        counts -= tl.where(ramp == 0, padding, 0)
        last = tl.max(tl.where(counts > 0, ramp, 0), axis=0)
        if kind == _EQUALIZE:
            step = (pixels - tl.sum(tl.where(ramp == last, counts, 0), axis=0)) // 255
            before = tl.cumsum(counts, axis=0) - counts
            flat = (step // 2 + before) // tl.maximum(step, 1)
            high = tl.where(step > 0, tl.minimum(flat, 255), ramp)
        else:
            first = tl.min(tl.where(counts > 0, ramp, 255), axis=0)
            scale = 255.0 / tl.maximum(last - first, 1).to(tl.float64)
            stretched = ramp.to(tl.float64) * scale + -first.to(tl.float64) * scale
            stretched = tl.minimum(tl.maximum(stretched, 0.0), 255.0).to(tl.int32)
            high = tl.where(last > first, stretched, ramp)
        table = _blend(blended, high.to(tl.float32), weight)
    tl.store(tables + (slot * 3 + channel) * 256 + ramp, table)


@triton.jit(do_not_specialize=["layer_start"])
def _layer(  # type: ignore[no-untyped-def]
    source, target, kinds, weights, slots, tables, image_tables, maps, boxes, colour, layer_start,
    height, width, BILINEAR: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Apply the op of one sample to a block of its pixels, in all three channels.

    layer_start: the index of the layer's first sample in the flattened [layers, N].
    """
    pixels = height * width
    blocks = tl.cdiv(pixels, BLOCK)
    sample = (tl.program_id(0) // blocks).to(tl.int64)
    k = (tl.program_id(0) % blocks) * BLOCK + tl.arange(0, BLOCK)
    valid = k < pixels
    position = layer_start + sample
    kind = tl.load(kinds + position).to(tl.int32)
    weight = tl.load(weights + position)
    slot = tl.load(slots + position)
    image, out = source + sample * 3 * pixels, target + sample * 3 * pixels
    x, y = k % width, k // width
    if kind == _WARP:
        _warp(image, out, maps + slot * 6, colour, k, valid, x, y, height, width, BILINEAR)
    elif kind == _COLOR:
        grey = _luma(image, k, pixels, valid).to(tl.float32)
        for c in tl.static_range(3):
            high = tl.load(image + c * pixels + k, mask=valid, other=0).to(tl.float32)
            tl.store(out + c * pixels + k, _blend(grey, high, weight), mask=valid)
    elif kind == _SHARPNESS:
        inner = valid & (x > 0) & (x < width - 1) & (y > 0) & (y < height - 1)
        for c in tl.static_range(3):
            here = image + c * pixels + k
            high = tl.load(here, mask=valid, other=0).to(tl.int32)
            total = 4 * high
            for dy in tl.static_range(-1, 2):
                for dx in tl.static_range(-1, 2):
                    total += tl.load(here + dy * width + dx, mask=inner, other=0).to(tl.int32)
            low = tl.where(inner, (2 * total + 13) // 26, high)
            value = _blend(low.to(tl.float32), high.to(tl.float32), weight)
            tl.store(out + c * pixels + k, value, mask=valid)
    elif kind == _BOX:
        box = boxes + position * 4
        left, top = tl.load(box), tl.load(box + 1)
        right, bottom = tl.load(box + 2), tl.load(box + 3)
        covered = (x >= left) & (x < right) & (y >= top) & (y < bottom)
        for c in tl.static_range(3):
            value = tl.load(image + c * pixels + k, mask=valid, other=0)
            value = tl.where(covered, tl.load(colour + c), value)
            tl.store(out + c * pixels + k, value, mask=valid)
    else:
        for c in tl.static_range(3):
            value = tl.load(image + c * pixels + k, mask=valid, other=0)
            if kind == _TABLE:
                value = tl.load(tables + slot * 256 + value.to(tl.int32))
            elif (kind == _CONTRAST) | (kind == _AUTOCONTRAST) | (kind == _EQUALIZE):
                value = tl.load(image_tables + (slot * 3 + c) * 256 + value.to(tl.int32))
            tl.store(out + c * pixels + k, value, mask=valid)


@triton.jit
def _warp(  # type: ignore[no-untyped-def]
    image, out, map, colour, k, valid, x, y, height, width, BILINEAR: tl.constexpr
):
    """Apply Pillow's `Image.transform(AFFINE)`.

    map: int32 [6] in 16.16 fixed point for nearest, float64 [6] for bilinear.
    """
    a, b, c = tl.load(map), tl.load(map + 1), tl.load(map + 2)
    d, e, f = tl.load(map + 3), tl.load(map + 4), tl.load(map + 5)
    pixels = height * width
    if BILINEAR:
        column, row = x.to(tl.float64) + 0.5, y.to(tl.float64) + 0.5
        xx, yy = a * column + b * row + c, d * column + e * row + f
        inside = valid & (xx >= 0) & (xx < width) & (yy >= 0) & (yy < height)
        xx, yy = xx - 0.5, yy - 0.5
        x0, y0 = tl.floor(xx), tl.floor(yy)
        dx, dy = xx - x0, yy - y0
        left, top = x0.to(tl.int32), y0.to(tl.int32)
        right, bottom = tl.minimum(left + 1, width - 1), tl.minimum(top + 1, height - 1)
        left, top = tl.maximum(left, 0), tl.maximum(top, 0)
        for channel in tl.static_range(3):
            plane = image + channel * pixels
            p = tl.load(plane + top * width + left, mask=inside, other=0).to(tl.float64)
            q = tl.load(plane + top * width + right, mask=inside, other=0).to(tl.float64)
            r = tl.load(plane + bottom * width + left, mask=inside, other=0).to(tl.float64)
            s = tl.load(plane + bottom * width + right, mask=inside, other=0).to(tl.float64)
            upper, lower = p + (q - p) * dx, r + (s - r) * dx
            value = (upper + (lower - upper) * dy).to(tl.int32).to(tl.uint8)
            value = tl.where(inside, value, tl.load(colour + channel))
            tl.store(out + channel * pixels + k, value, mask=valid)
    else:
        xx, yy = (a * x + b * y + c) >> 16, (d * x + e * y + f) >> 16
        inside = valid & (xx >= 0) & (xx < width) & (yy >= 0) & (yy < height)
        for channel in tl.static_range(3):
            plane = image + channel * pixels
            value = tl.load(plane + yy * width + xx, mask=inside, other=0)
            value = tl.where(inside, value, tl.load(colour + channel))
            tl.store(out + channel * pixels + k, value, mask=valid)
