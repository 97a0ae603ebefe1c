"""Measure how long a network takes for a batch of images, in eager torch and fp32."""

from __future__ import annotations

import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from harness.errors import UserError
from harness.store.latency import MANY, SINGLE

THREADS = 1  # on a CPU, so that the number does not depend on how many cores are free
WARM_UP = 3  # passes that are not counted: allocations, kernels that are chosen at first use
FEWEST, MOST = 10, 200  # passes that are timed
SECONDS = 2.0  # after which no more are timed than `FEWEST`


def choose_device(name: str) -> torch.device:
    """Return the device of `run.device`. Raises UserError if a GPU is named and there is none."""
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("run.device=cuda: torch finds no GPU here; set run.device=cpu")
    has_gpu = name != "cpu" and torch.cuda.is_available()
    return torch.device("cuda" if has_gpu else "cpu")


def device_name(device: torch.device) -> str:
    """Return the name of the GPU, or of the model of CPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"cpu ({next(iter(names), platform.machine())})"


@torch.inference_mode()
def measure(module: nn.Module, channels: int, side: int, device: torch.device) -> dict[str, Any]:
    """Return the latency of a network in eval mode, as `store.latency.write_latency` records it.

    The module is moved to the device. On a CPU one torch thread is used, on a GPU each pass ends
    with a synchronisation. TF32 is off.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    try:
        module = module.to(device)
        batches = {
            str(count): _time(module, torch.zeros(count, channels, side, side, device=device))
            for count in (SINGLE, MANY)
        }
    except torch.OutOfMemoryError as error:
        raise UserError(f"{MANY} images of {side} pixels do not fit into the GPU") from error
    finally:
        torch.set_num_threads(threads)
    return {
        "device": device_name(device),
        "runtime": f"torch {torch.__version__} eager fp32",
        "threads": THREADS if device.type == "cpu" else 0,
        "batches": batches,
        "measured_at": time.time(),
    }


def _time(module: nn.Module, images: torch.Tensor) -> dict[str, Any]:
    """Return the median and the quartiles of a forward pass in milliseconds."""
    passes: list[float] = []
    begin = 0.0
    with torch.backends.cudnn.flags(allow_tf32=False):
        for number in range(WARM_UP + MOST):
            if number == WARM_UP:
                begin = time.perf_counter()
            start = time.perf_counter()
            module(images)
            if images.device.type == "cuda":
                torch.cuda.synchronize(images.device)
            end = time.perf_counter()
            if number >= WARM_UP:
                passes.append(1000 * (end - start))
            if len(passes) >= FEWEST and end - begin > SECONDS:
                break
    low, median, high = (float(value) for value in np.quantile(passes, (0.25, 0.5, 0.75)))
    return {"median_ms": median, "low_ms": low, "high_ms": high, "repeats": len(passes)}
