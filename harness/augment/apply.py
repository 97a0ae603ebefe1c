"""Apply a plan to a batch: `apply(images_u8, plan)`, pure, on the device the images are on.

Plain torch (`kernels.py`) is the reference and runs everywhere. On a CPU, loops compiled by Numba
(it comes with FFCV; `compiled.py`) give the same bits several times as fast, once a process has
worked long enough to earn back the seconds that Numba takes to start. On a GPU kernels of Triton
(it comes with torch; `fused.py`) do, where they can be built. Nothing here draws a random number,
waits for the device or changes the input.
"""

from __future__ import annotations

import functools
import importlib.util
import subprocess
import sys
from collections.abc import Callable

import torch
from torch import Tensor

from harness.augment import kernels
from harness.augment.lower import Lowered, lower
from harness.augment.ops import LARGEST_SIDE
from harness.augment.plan import Plan
from harness.errors import UserError

Executor = Callable[[Tensor, Lowered, tuple[int, int, int], str], Tensor]

# Numba starts in 2 s (7 s where nothing is cached): plain torch does about as many bytes in that.
_PATIENCE = 1 << 27
_torch_bytes = 0


@functools.cache
def fast_executor() -> Executor | None:
    """The compiled loops, or None where Numba is not installed."""
    if importlib.util.find_spec("numba") is None:
        return None
    from harness.augment import compiled

    return compiled.run


_NO_TRITON = (ImportError, RuntimeError, OSError, subprocess.SubprocessError, AssertionError)


@functools.cache
def gpu_executor(device: torch.device) -> Executor:
    """The kernels of Triton if `device` takes them, else plain torch, with a word on stderr.

    Triton builds its launcher by a C compiler, which a cluster's nodes may lack, and keeps it in
    the home folder, and it asserts that it finds the driver: one image shows whether it can.
    """
    sample = Plan.of([[("Equalize", 1.0), ("Color", 0.5)]])
    try:
        from triton.errors import TritonError

        from harness.augment import fused
    except _NO_TRITON as error:
        return _slowly(f"Triton cannot be imported ({error})")
    try:
        images = torch.zeros((1, 3, 4, 4), dtype=torch.uint8, device=device)
        fused.run(images, lower(sample, 4, 4), sample.fill, sample.interpolation)
    except torch.OutOfMemoryError:
        raise
    except (*_NO_TRITON, TritonError) as error:
        return _slowly(f"Triton cannot build kernels ({' '.join(str(error).split())[:200]})")
    return fused.run


def _slowly(why: str) -> Executor:
    print(
        f"note: {why}: images are augmented by plain torch, to the same bits but slower; a C "
        "compiler on the node (CC names one) is what Triton needs.",
        file=sys.stderr,
    )
    return kernels.run


def _executor(images: Tensor) -> Executor:
    global _torch_bytes
    if images.device.type == "cuda":
        return gpu_executor(images.device)
    if images.device.type != "cpu":
        return kernels.run
    if _torch_bytes < _PATIENCE:
        _torch_bytes += images.numel()
        return kernels.run
    return fast_executor() or kernels.run


def apply(images: Tensor, plan: Plan) -> Tensor:
    """The images after their ops.

    images: uint8 [N, 3, H, W], any strides (channels_last, views); plan: for N samples.
    Returns uint8 [N, 3, H, W] in new, contiguous memory on the same device.

    Raises:
        UserError: images of another type or shape, or a plan for another number of samples.
    """
    check_images(images)
    if len(plan) != len(images):
        raise UserError(f"a plan for {len(plan)} samples does not fit {len(images)} images.")
    if images.numel() == 0 or plan.layers == 0:
        return images.clone(memory_format=torch.contiguous_format)
    lowered = lower(plan, images.shape[2], images.shape[3])
    return _executor(images)(images, lowered, plan.fill, plan.interpolation)


def check_images(images: Tensor) -> None:
    """Raise `UserError` unless `images` are uint8 [N, 3, H, W] of a size that `apply` takes."""
    if not isinstance(images, Tensor) or images.dtype != torch.uint8:
        kind = images.dtype if isinstance(images, Tensor) else type(images).__name__
        raise UserError(
            f"augmentation takes uint8 images from 0 to 255, not {kind}: apply it before they are "
            "scaled to floats."
        )
    if images.ndim != 4 or images.shape[1] != 3:
        raise UserError(
            f"augmentation takes images of shape [N, 3, height, width], not {list(images.shape)}: "
            "repeat grey images to three channels, and put channels second."
        )
    if max(images.shape[2:]) > LARGEST_SIDE:
        raise UserError(
            f"augmentation takes images of up to {LARGEST_SIDE} pixels a side, not "
            f"{images.shape[2]} x {images.shape[3]}: beyond, Pillow maps coordinates differently."
        )
