"""Turn a plan into what an executor needs: a kind and parameters for each layer and sample.

Whatever does not depend on the pixels is computed here on the host, with Pillow's arithmetic:
tables, affine maps (in 16.16 fixed point for nearest), boxes, weights of blends.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.augment.ops import OPS, Kind
from harness.augment.plan import Plan, in_pixels

_ONE = 65536.0  # 1 in 16.16 fixed point

Maps = NDArray[np.float64] | NDArray[np.int32]


@dataclass(frozen=True)
class Lowered:
    """A plan for one image size, with L layers and N samples.

    ops: uint8 [L, N], codes of ops in pixels. kinds: uint8 [L, N], how to run each (`ops.Kind`).
    weights: float32 [L, N], the value of each op, for example the weight of a blend. slots: int32
    [L, N], the index of a row of `tables` for Kind.TABLE, or of `maps` for Kind.WARP. tables: uint8
    [T, 256]. maps: [M, 6]; for bilinear Pillow's AFFINE data in float64, for nearest the result of
    `fixed_point`. boxes: int32 [L, N, 4], (left, top, right, bottom).
    """

    ops: NDArray[np.uint8]
    kinds: NDArray[np.uint8]
    weights: NDArray[np.float32]
    slots: NDArray[np.int32]
    tables: NDArray[np.uint8]
    maps: Maps
    boxes: NDArray[np.int32]


def lower(plan: Plan, height: int, width: int) -> Lowered:
    """Return `plan` for images of height x width.

    An op whose value changes nothing gets Kind.IDENTITY.
    """
    codes, values = in_pixels(plan.ops, plan.values, height, width)
    rows = list(OPS.values())
    neutral = np.array([op.neutral for op in rows])
    kinds = np.array([op.kind for op in rows], dtype=np.uint8)[codes]
    kinds[values == neutral[codes]] = Kind.IDENTITY
    slots = np.zeros(codes.shape, dtype=np.int32)
    tables, maps = [np.zeros((0, 256), dtype=np.uint8)], [np.zeros((0, 6))]
    next_slot = {Kind.TABLE: 0, Kind.WARP: 0}
    for code in np.unique(codes):
        op = rows[code]
        if op.kind not in next_slot:
            continue
        samples = (codes == code) & (kinds == op.kind)
        # A table or map is computed once for each distinct value; a batch has few of them.
        distinct_values, positions = np.unique(values[samples], return_inverse=True)
        slots[samples] = next_slot[op.kind] + positions
        next_slot[op.kind] += len(distinct_values)
        if op.table is not None:
            tables.append(op.table(distinct_values))
        if op.matrix is not None:
            maps.append(op.matrix(distinct_values, height, width))
    matrices = np.concatenate(maps)
    boxes = np.zeros((*codes.shape, 4), dtype=np.int32)
    if plan.boxes is not None:
        boxes[:] = plan.sized(height, width).boxes
    return Lowered(
        codes,
        kinds,
        values.astype(np.float32),
        slots,
        np.concatenate(tables),
        fixed_point(matrices) if plan.interpolation == "nearest" else matrices,
        boxes,
    )


def fixed_point(matrices: NDArray[np.float64]) -> NDArray[np.int32]:
    """Return AFFINE data [M, 6] in 16.16 fixed point, moved from pixel corners to pixel centres.

    This is `affine_fixed` in Pillow's Geometry.c. For a translation Pillow calls another function,
    `ImagingScaleAffine`, which takes the floor of x + 0.5 + v. Rounding the offset to whole pixels
    first gives exactly the same positions.
    """
    a, b, c, d, e, f = np.moveaxis(matrices, -1, 0)
    x, y = c + a * 0.5 + b * 0.5, f + d * 0.5 + e * 0.5
    is_translation = (b == 0) & (d == 0) & (a == 1) & (e == 1)
    x = np.where(is_translation, np.floor(x) + 0.5, x)
    y = np.where(is_translation, np.floor(y) + 0.5, y)
    return np.floor(np.stack([a, b, x, d, e, y], axis=-1) * _ONE + 0.5).astype(np.int32)
