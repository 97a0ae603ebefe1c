"""Apply a plan to a batch, and choose the executor that does it.

`apply(images_u8, plan)` is a pure function: it draws no random number, does not wait for the device
and does not change its input. Three executors give the same pixels, to the bit:

- `torch_executor` runs on any device. It is the reference and the default of `apply`. Only it can
  run ops that a plug-in file defines by a torch kernel.
- `numba_executor` is for trainings on a CPU, where it is 7 to 9 times as fast as plain torch. It
  needs Numba, which FFCV installs, and takes two seconds to start (ten if nothing is cached).
- `triton_executor` is for trainings on a GPU. It needs Triton, which torch installs, and a C
  compiler.

A training calls `choose_executor` once, before its first step, and passes the result to `apply`.
"""

from __future__ import annotations

import functools
import importlib.util
import subprocess
import sys
from collections.abc import Callable

import torch
from torch import Tensor

from harness.augment import torch_executor
from harness.augment.lower import Lowered, lower
from harness.augment.ops import Colour, Kind
from harness.augment.plan import Plan
from harness.data.catalog import LARGEST_SIDE
from harness.errors import UserError

Executor = Callable[[Tensor, Lowered, Colour, str], Tensor]
"""(images uint8 [N, 3, H, W], lowered plan, fill colour, interpolation) -> new images."""


def apply(images: Tensor, plan: Plan, executor: Executor = torch_executor.run) -> Tensor:
    """Return the images after their ops: uint8 [N, 3, H, W], new contiguous memory, same device.

    images: uint8 [N, 3, H, W], any strides (channels_last, views).
    plan: for N samples.
    executor: a result of `choose_executor` for the device of the images. The pixels do not depend
    on it.

    Raises:
        UserError: images of another type or shape, or a plan for another number of samples.
    """
    check_images(images)
    if len(plan) != len(images):
        raise UserError(f"a plan for {len(plan)} samples does not fit {len(images)} images.")
    if images.numel() == 0 or plan.layers == 0:
        return images.clone(memory_format=torch.contiguous_format)
    lowered = lower(plan, images.shape[2], images.shape[3])
    if (lowered.kinds == Kind.KERNEL).any():  # an op that only plain torch can run
        executor = torch_executor.run
    return executor(images, lowered, plan.fill, plan.interpolation)


def choose_executor(device: torch.device) -> Executor:
    """Return the fastest executor that this machine can run on `device`.

    The choice depends only on the device and on what is installed.
    """
    if device.type == "cuda":
        return triton_or_torch(device)
    if device.type == "cpu" and importlib.util.find_spec("numba") is not None:
        from harness.augment import numba_executor

        return numba_executor.run
    return torch_executor.run


_NO_TRITON = (ImportError, RuntimeError, OSError, subprocess.SubprocessError, AssertionError)


@functools.cache  # a process tests each device once, so it prints at most one note for it
def triton_or_torch(device: torch.device) -> Executor:
    """Return Triton's executor if its kernels can be built for `device`, else plain torch.

    Triton needs a C compiler, a writable home folder and a GPU driver, and a node may lack each. So
    one image is augmented as a test. If that fails, a note on stderr says why.
    """
    try:
        from triton.errors import TritonError

        from harness.augment import triton_executor
    except _NO_TRITON as error:
        return _fall_back(f"Triton cannot be imported ({error})")
    plan = Plan.of([[("Equalize", 1.0), ("Color", 0.5)]])  # Equalize needs both kernels
    try:
        images = torch.zeros((1, 3, 4, 4), dtype=torch.uint8, device=device)
        triton_executor.run(images, lower(plan, 4, 4), plan.fill, plan.interpolation)
    except torch.OutOfMemoryError:
        raise  # also a RuntimeError, but Triton works; the training reports the lack of memory
    except (*_NO_TRITON, TritonError) as error:
        return _fall_back(f"Triton cannot build kernels ({' '.join(str(error).split())[:200]})")
    return triton_executor.run


def _fall_back(reason: str) -> Executor:
    """Return plain torch, and print why it replaces Triton."""
    print(
        f"note: {reason}: images are augmented by plain torch, with the same pixels but slower. "
        "Triton needs a C compiler on the node; the environment variable CC names one.",
        file=sys.stderr,
    )
    return torch_executor.run


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
            f"{images.shape[2]} x {images.shape[3]}: Pillow maps the coordinates of larger images "
            "differently."
        )
