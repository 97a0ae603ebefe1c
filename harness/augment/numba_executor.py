"""The executor for trainings on a CPU: the arithmetic of `kernels.py` as loops compiled by Numba.

It is fast because a sample goes through all its layers while it is in the processor's cache. Arrays
are C-contiguous and each parameter has one type, so Numba compiles a single variant.

The inner loops use few arrays each, and float32 for blends, so that the compiler vectorises them.
Constants are wrapped in `f32`, because Numba would widen them to float64. Fast-math is off, so that
no multiply and add are fused.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from harness.augment.lower import Lowered
from harness.augment.ops import Colour, Kind
from harness.cached_jit import CachedJit, jit

# Numba compiles again when the text of this file changes, but not when `Kind` does. If the numbers
# were imported from `Kind`, the cache would keep old ones. So they are repeated here, and compared
# with `Kind` at import.
_IDENTITY, _TABLE, _WARP, _COLOR, _CONTRAST, _AUTOCONTRAST, _EQUALIZE, _SHARPNESS, _BOX = range(9)
assert (Kind.IDENTITY, Kind.TABLE, Kind.WARP) == (_IDENTITY, _TABLE, _WARP)
assert (Kind.COLOR, Kind.CONTRAST, Kind.AUTOCONTRAST) == (_COLOR, _CONTRAST, _AUTOCONTRAST)
assert (Kind.EQUALIZE, Kind.SHARPNESS, Kind.BOX) == (_EQUALIZE, _SHARPNESS, _BOX)
_ONE = 65536  # 1 in 16.16 fixed point
_compiled = jit()
f32 = np.float32


def run(images: Tensor, lowered: Lowered, fill: Colour, interpolation: str) -> Tensor:
    """Return images uint8 [N, 3, H, W] on the CPU after all layers, in new contiguous memory.

    No op may be of `Kind.KERNEL`.
    """
    source = images.contiguous()
    out = torch.empty_like(source)
    bilinear = interpolation == "bilinear"
    matrices = lowered.maps if bilinear else np.zeros((0, 6))
    fixed = np.zeros((0, 6), dtype=np.int64) if bilinear else lowered.maps.astype(np.int64)
    _run_batch(
        source.numpy(),
        out.numpy(),
        lowered.kinds,
        lowered.weights,
        lowered.slots,
        lowered.tables,
        fixed,
        matrices,
        lowered.boxes,
        np.array(fill, dtype=np.uint8),
        bilinear,
    )
    return out


@_compiled
def _blend(low, high, weight):  # type: ignore[no-untyped-def]
    value = low + weight * (high - low)
    value = f32(0) if value < f32(0) else value
    value = f32(255) if value > f32(255) else value
    return np.uint8(np.int32(value))


@_compiled
def _look_up(src, dst, table):  # type: ignore[no-untyped-def]
    for k in range(src.size):
        dst[k] = table[src[k]]


@_compiled
def _luma(src, grey):  # type: ignore[no-untyped-def]
    red, green, blue = src[0], src[1], src[2]
    for k in range(grey.size):
        total = (
            f32(red[k]) * f32(19595)
            + f32(green[k]) * f32(38470)
            + f32(blue[k]) * f32(7471)
            + f32(32768)
        )
        grey[k] = np.uint8(np.int32(total) >> 16)


@_compiled
def _color(src, dst, weight, grey):  # type: ignore[no-untyped-def]
    _luma(src, grey)
    for c in range(3):
        high, low = src[c], dst[c]
        for k in range(grey.size):
            low[k] = _blend(f32(grey[k]), f32(high[k]), weight)


@_compiled
def _contrast(src, dst, weight, grey, table):  # type: ignore[no-untyped-def]
    _luma(src, grey)
    total = 0
    for k in range(grey.size):
        total += grey[k]
    mean = f32(int(total / grey.size + 0.5))
    for v in range(256):
        table[v] = _blend(mean, f32(v), weight)
    _look_up(src.reshape(-1), dst.reshape(-1), table)


@_compiled
def _autocontrast(src, dst, weight, table):  # type: ignore[no-untyped-def]
    for c in range(3):
        low, high = np.uint8(255), np.uint8(0)
        for value in src[c]:
            low = min(low, value)
            high = max(high, value)
        scale = 255.0 / (high - low) if high > low else 1.0
        offset = -float(low) * scale if high > low else 0.0
        for v in range(256):
            stretched = min(255, max(0, int(v * scale + offset)))
            table[v] = _blend(f32(v), f32(stretched), weight)
        _look_up(src[c], dst[c], table)


@_compiled
def _equalize(src, dst, weight, table, counts):  # type: ignore[no-untyped-def]
    n = src.shape[1]
    for c in range(3):
        # Four histograms, so that equal neighbours do not have to wait for the same counter.
        counts[:] = 0
        for k in range(0, n - 3, 4):
            counts[0, src[c, k]] += 1
            counts[1, src[c, k + 1]] += 1
            counts[2, src[c, k + 2]] += 1
            counts[3, src[c, k + 3]] += 1
        for k in range(n - n % 4, n):
            counts[0, src[c, k]] += 1
        last = 0
        for v in range(256):
            counts[0, v] += counts[1, v] + counts[2, v] + counts[3, v]
            if counts[0, v]:
                last = counts[0, v]
        step = (n - last) // 255
        before = step // 2
        for v in range(256):
            flat = min(255, before // step) if step else v
            table[v] = _blend(f32(v), f32(flat), weight)
            before += counts[0, v]
        _look_up(src[c], dst[c], table)


@_compiled
def _copy(src, dst):  # type: ignore[no-untyped-def]
    for k in range(src.size):  # Numba takes seconds to compile a slice assignment
        dst[k] = src[k]


@_compiled
def _sharpness(src, dst, weight, height, width):  # type: ignore[no-untyped-def]
    _copy(src.reshape(-1), dst.reshape(-1))
    if width < 3:
        return
    for c in range(3):
        for y in range(1, height - 1):
            above = src[c, (y - 1) * width : y * width]
            here = src[c, y * width : (y + 1) * width]
            below = src[c, (y + 1) * width : (y + 2) * width]
            target = dst[c, y * width : (y + 1) * width]
            for x in range(1, width - 1):
                total = f32(above[x - 1]) + f32(above[x]) + f32(above[x + 1])
                total += f32(here[x - 1]) + f32(5) * f32(here[x]) + f32(here[x + 1])
                total += f32(below[x - 1]) + f32(below[x]) + f32(below[x + 1])
                low = f32(np.int32(total / f32(13) + f32(0.5)))
                target[x] = _blend(low, f32(here[x]), weight)


@_compiled
def _box(src, dst, box, fill, width):  # type: ignore[no-untyped-def]
    _copy(src.reshape(-1), dst.reshape(-1))
    for c in range(3):
        for y in range(box[1], box[3]):
            for k in range(y * width + box[0], y * width + box[2]):
                dst[c, k] = fill[c]


@_compiled
def _span(start, step, limit, low, high):  # type: ignore[no-untyped-def]
    """Return the part of [low, high) whose k have 0 <= start + step k < limit."""
    if step == 0:
        return (low, high) if 0 <= start < limit else (low, low)
    if step < 0:
        start, step = limit - 1 - start, -step
    first = min(high, max(low, -(start // step)))
    return first, max(first, min(high, (limit - 1 - start) // step + 1))


@_compiled
def _warp_nearest(src, dst, map, fill, height, width):  # type: ignore[no-untyped-def]
    a, b, c, d, e, f = map[0], map[1], map[2], map[3], map[4], map[5]
    for y in range(height):
        xx, yy, row = b * y + c, e * y + f, y * width
        low, high = _span(xx, a, width * _ONE, 0, width)
        low, high = _span(yy, d, height * _ONE, low, high)
        for channel in range(3):
            for x in range(low):
                dst[channel, row + x] = fill[channel]
            for x in range(high, width):
                dst[channel, row + x] = fill[channel]
        if d == 0 and a == _ONE:  # a translation or a shear along x moves whole rows
            start = (yy >> 16) * width + (xx >> 16)
            for channel in range(3):
                part = src[channel, start + low : start + high]
                _copy(part, dst[channel, row + low : row + high])
            continue
        for x in range(low, high):
            k = ((yy + d * x) >> 16) * width + ((xx + a * x) >> 16)
            dst[0, row + x] = src[0, k]
            dst[1, row + x] = src[1, k]
            dst[2, row + x] = src[2, k]


@_compiled
def _warp_bilinear(src, dst, map, fill, height, width):  # type: ignore[no-untyped-def]
    a, b, c, d, e, f = map[0], map[1], map[2], map[3], map[4], map[5]
    for y in range(height):
        for x in range(width):
            k = y * width + x
            xx, yy = a * (x + 0.5) + b * (y + 0.5) + c, d * (x + 0.5) + e * (y + 0.5) + f
            if not (0 <= xx < width and 0 <= yy < height):
                for channel in range(3):
                    dst[channel, k] = fill[channel]
                continue
            xx, yy = xx - 0.5, yy - 0.5
            left, top = int(np.floor(xx)), int(np.floor(yy))
            dx, dy = xx - left, yy - top
            right, bottom = min(left + 1, width - 1), min(top + 1, height - 1) * width
            left, top = max(left, 0), max(top, 0) * width
            for channel in range(3):
                image = src[channel]
                p, q = float(image[top + left]), float(image[top + right])
                r, s = float(image[bottom + left]), float(image[bottom + right])
                upper, lower = p + (q - p) * dx, r + (s - r) * dx
                dst[channel, k] = np.uint8(int(upper + (lower - upper) * dy))


def _batch(  # type: ignore[no-untyped-def]
    source, out, kinds, weights, slots, tables, fixed, matrices, boxes, fill, bilinear
):
    layers, n = kinds.shape
    height, width = source.shape[2:]
    pixels = height * width
    source, out = source.reshape(n, 3, pixels), out.reshape(n, 3, pixels)
    scratch = np.empty((3, pixels), dtype=np.uint8)
    grey = np.empty(pixels, dtype=np.uint8)
    table = np.empty(256, dtype=np.uint8)
    counts = np.empty((4, 256), dtype=np.int64)
    for i in range(n):
        remaining = 0  # ops of this sample that are still to be done
        for layer in range(layers):
            remaining += kinds[layer, i] != _IDENTITY
        if remaining == 0:
            _copy(source[i].reshape(-1), out[i].reshape(-1))
        src = source[i]
        for layer in range(layers):
            kind = kinds[layer, i]
            if kind == _IDENTITY:
                continue
            remaining -= 1
            # The targets alternate, and the last op writes to the output.
            dst = out[i] if remaining % 2 == 0 else scratch
            weight = weights[layer, i]
            if kind == _TABLE:
                _look_up(src.reshape(-1), dst.reshape(-1), tables[slots[layer, i]])
            elif kind == _WARP and bilinear:
                _warp_bilinear(src, dst, matrices[slots[layer, i]], fill, height, width)
            elif kind == _WARP:
                _warp_nearest(src, dst, fixed[slots[layer, i]], fill, height, width)
            elif kind == _COLOR:
                _color(src, dst, weight, grey)
            elif kind == _CONTRAST:
                _contrast(src, dst, weight, grey, table)
            elif kind == _AUTOCONTRAST:
                _autocontrast(src, dst, weight, table)
            elif kind == _EQUALIZE:
                _equalize(src, dst, weight, table, counts)
            elif kind == _SHARPNESS:
                _sharpness(src, dst, weight, height, width)
            else:
                _box(src, dst, boxes[layer, i], fill, width)
            src = dst


_run_batch = CachedJit(_batch)
