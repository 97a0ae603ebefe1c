"""From a plan to what an executor needs: a kind and parameters for each layer and sample.

Everything that can be computed before the images are seen is computed here, on the host, in the
arithmetic of Pillow: tables, affine maps (as 16.16 fixed point for nearest), boxes, blend weights.
A batch holds few distinct pairs of an op and a value (about two for each op, where magnitudes are
fixed), so each is worked out once, and kept for the batches that follow.
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.augment.ops import OPS, Kind, Op, Tables
from harness.augment.plan import Plan, in_pixels

_FIXED = 65536.0
_FEW = 8  # values of an op: more are those of magnitudes that vary, and do not come again

_OPS = tuple(OPS.values())  # by code
_KINDS = np.array([op.kind for op in _OPS], dtype=np.uint8)
_NEUTRAL = np.array([np.nan if op.neutral is None else op.neutral for op in _OPS])

Maps = NDArray[np.float64] | NDArray[np.int32]


@dataclass(frozen=True)
class Lowered:
    """A plan for one image size.

    kinds: uint8 [L, N]. weights: float32 [L, N], of a blend. slots: int32 [L, N], rows of `tables`
    where the kind is TABLE, of `maps` where it is WARP. tables: uint8 [T, 256]. maps: [M, 6],
    Pillow's AFFINE data in float64 for bilinear; for nearest the same in int32, 16.16 fixed point
    from pixel centres. boxes: int32 [L, N, 4].
    """

    kinds: NDArray[np.uint8]
    weights: NDArray[np.float32]
    slots: NDArray[np.int32]
    tables: NDArray[np.uint8]
    maps: Maps
    boxes: NDArray[np.int32]


def lower(plan: Plan, height: int, width: int) -> Lowered:
    """`plan` for images of height x width; an op whose value changes nothing becomes Identity."""
    pairs = np.empty(plan.ops.shape, dtype=np.complex128)  # which np.unique sorts by op, then value
    pairs.real, pairs.imag = plan.ops, plan.values
    distinct, place = np.unique(pairs, return_inverse=True)
    place = place.reshape(plan.ops.shape)
    codes, values = in_pixels(distinct.real.astype(np.uint8), distinct.imag, height, width)
    kinds = _KINDS[codes]
    kinds[values == _NEUTRAL[codes]] = Kind.IDENTITY
    slots = np.zeros(len(codes), dtype=np.int32)
    tables = [np.zeros((0, 256), dtype=np.uint8)]
    maps = [_kept_maps(OPS["Rotate"], (), height, width, plan.interpolation)]
    for kind in (Kind.TABLE, Kind.WARP):
        chosen = np.flatnonzero(kinds == kind)
        slots[chosen] = np.arange(len(chosen))
        ops, own = codes[chosen], values[chosen].tolist()
        starts = np.flatnonzero(np.diff(ops, prepend=255)).tolist()
        for start, end in itertools.pairwise([*starts, len(own)]):
            op, part, few = _OPS[ops[start]], tuple(own[start:end]), end - start <= _FEW
            if kind == Kind.TABLE:
                tables.append((_kept_tables if few else _tables)(op, part))
            else:
                make = _kept_maps if few else _maps
                maps.append(make(op, part, height, width, plan.interpolation))
    boxes = np.zeros((*plan.ops.shape, 4), dtype=np.int32)
    if plan.boxes is not None:
        boxes[:] = plan.sized(height, width).boxes
    return Lowered(
        kinds[place],
        values.astype(np.float32)[place],
        slots[place],
        np.concatenate(tables),
        np.concatenate(maps),  # type: ignore[arg-type]
        boxes,
    )


def _tables(op: Op, values: tuple[float, ...]) -> Tables:
    """Tables [n, 256] of an op at values [n]."""
    assert op.table is not None
    return op.table(np.array(values))


def _maps(op: Op, values: tuple[float, ...], height: int, width: int, interpolation: str) -> Maps:
    """Maps [n, 6] of an op at values [n]."""
    assert op.matrix is not None
    matrices = op.matrix(np.array(values, dtype=np.float64), height, width)
    return fixed_point(matrices) if interpolation == "nearest" else matrices


_kept_tables = functools.lru_cache(maxsize=256)(_tables)
_kept_maps = functools.lru_cache(maxsize=256)(_maps)


def fixed_point(matrices: NDArray[np.float64]) -> NDArray[np.int32]:
    """Pillow's `affine_fixed` (Geometry.c): 16.16 coefficients that map pixel centres.

    A map without rotation or shear goes through `ImagingScaleAffine` there, whose floor of
    x + 0.5 + v is kept exactly by rounding the offset to whole pixels first.
    """
    a, b, c, d, e, f = np.moveaxis(matrices, -1, 0)
    x, y = c + a * 0.5 + b * 0.5, f + d * 0.5 + e * 0.5
    straight = (b == 0) & (d == 0) & (a == 1) & (e == 1)
    x = np.where(straight, np.floor(x) + 0.5, x)
    y = np.where(straight, np.floor(y) + 0.5, y)
    return np.floor(np.stack([a, b, x, d, e, y], axis=-1) * _FIXED + 0.5).astype(np.int32)
