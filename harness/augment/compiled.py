"""The fast executor on a CPU: the same arithmetic as `kernels.py`, as loops compiled by Numba.

A sample goes through all its layers while it is in the cache. One specialisation serves all: arrays
are C-contiguous, parameters have one type each. Compiling takes seconds and happens once for a
machine: the result is kept beside this file, or in Numba's own cache folder where that cannot be
written, or not at all. Numba is imported when the first batch comes, so nothing else pays for it.

Float32 arithmetic is written with float32 constants throughout (Numba would widen it to float64),
and without fast-math, so that no multiply-add is fused.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.augment.lower import Lowered
from harness.augment.ops import Kind

_IDENTITY, _TABLE, _WARP, _COLOR, _CONTRAST = (
    int(kind) for kind in (Kind.IDENTITY, Kind.TABLE, Kind.WARP, Kind.COLOR, Kind.CONTRAST)
)
_AUTOCONTRAST, _EQUALIZE, _SHARPNESS = (
    int(kind) for kind in (Kind.AUTOCONTRAST, Kind.EQUALIZE, Kind.SHARPNESS)
)


@functools.cache
def available() -> bool:
    """Whether Numba is installed."""
    return importlib.util.find_spec("numba") is not None


def run(
    images: Tensor, lowered: Lowered, fill: tuple[int, int, int], interpolation: str
) -> Tensor:
    """Images uint8 [N, 3, H, W] on the CPU after all layers, in new contiguous memory."""
    source = images.contiguous()
    out = torch.empty_like(source)
    _loops()(
        source.numpy(),
        out.numpy(),
        lowered.kinds,
        lowered.weights,
        lowered.slots,
        lowered.tables,
        lowered.fixed,
        lowered.matrices,
        lowered.boxes,
        np.array(fill, dtype=np.uint8),
        interpolation == "bilinear",
    )
    return out


@functools.cache
def _loops() -> Callable[..., None]:
    import numba

    def jit(function: Callable[..., Any], **options: Any) -> Any:
        try:
            return numba.njit(nogil=True, cache=True, **options)(function)
        except RuntimeError:  # no folder can be written: compile for this process alone
            return numba.njit(nogil=True, **options)(function)

    f32 = np.float32

    def look_up(src, dst, table):
        source, target = src.reshape(-1), dst.reshape(-1)
        for k in range(source.size):
            target[k] = table[source[k]]

    look_up = jit(look_up)
    ...
