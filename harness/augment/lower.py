"""From a plan to what an executor needs: a kind and parameters for each layer and sample.

Everything that can be computed before the images are seen is computed here, on the host, in the
arithmetic of Pillow: tables, affine maps (as 16.16 fixed point for nearest), boxes, blend weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.augment.ops import NAMES, OPS
from harness.augment.plan import Plan

_FIXED = 65536.0


@dataclass(frozen=True)
class Lowered:
    """A plan for one image size.

    kinds: uint8 [L, N]. weights: float32 [L, N], of a blend. slots: int32 [L, N], rows of
    tables: uint8 [T, 256]. matrices: float64 [L, N, 6], Pillow's AFFINE data. fixed: int64
    [L, N, 6], the same in 16.16 fixed point from pixel centres. boxes: int32 [L, N, 4].
    """

    kinds: NDArray[np.uint8]
    weights: NDArray[np.float32]
    slots: NDArray[np.int32]
    tables: NDArray[np.uint8]
    matrices: NDArray[np.float64]
    fixed: NDArray[np.int64]
    boxes: NDArray[np.int32]


def lower(plan: Plan, height: int, width: int) -> Lowered:
    """`plan` for images of height x width; an op whose value changes nothing becomes Identity."""
    plan = plan.sized(height, width)
    shape = plan.ops.shape
    kinds = np.zeros(shape, dtype=np.uint8)
    slots = np.zeros(shape, dtype=np.int32)
    matrices = np.zeros((*shape, 6))
    fixed = np.zeros((*shape, 6), dtype=np.int64)
    tables = [np.zeros((0, 256), dtype=np.uint8)]
    size = 0
    for code in np.flatnonzero(np.bincount(plan.ops.ravel(), minlength=len(NAMES))):
        op = OPS[NAMES[code]]
        chosen = plan.ops == code
        if op.neutral is not None:
            chosen &= plan.values != op.neutral
        kinds[chosen] = op.kind
        values = plan.values[chosen]
        if op.table is not None and len(values):
            tables.append(op.table(values))
            slots[chosen] = np.arange(size, size + len(values))
            size += len(values)
        elif op.matrix is not None and len(values):
            matrices[chosen] = op.matrix(values, height, width)
            fixed[chosen] = fixed_point(matrices[chosen])
    boxes = np.zeros((*shape, 4)) if plan.boxes is None else plan.boxes
    return Lowered(
        kinds,
        plan.values.astype(np.float32),
        slots,
        np.concatenate(tables),
        matrices,
        fixed,
        boxes.astype(np.int32),
    )


def fixed_point(matrices: NDArray[np.float64]) -> NDArray[np.int64]:
    """Pillow's `affine_fixed` (Geometry.c): 16.16 coefficients that map pixel centres.

    A map without rotation or shear goes through `ImagingScaleAffine` there, whose floor of
    x + 0.5 + v is kept exactly by rounding the offset to whole pixels first.
    """
    a, b, c, d, e, f = np.moveaxis(matrices, -1, 0)
    x, y = c + a * 0.5 + b * 0.5, f + d * 0.5 + e * 0.5
    straight = (b == 0) & (d == 0) & (a == 1) & (e == 1)
    x = np.where(straight, np.floor(x) + 0.5, x)
    y = np.where(straight, np.floor(y) + 0.5, y)
    return np.floor(np.stack([a, b, x, d, e, y], axis=-1) * _FIXED + 0.5).astype(np.int64)
