"""`model.onnx`: the network for runtimes other than torch, checked against torch when written.

The graph takes fp32 images that are normalised already, [N, channels, side, side] for any N, and
returns the logits [N, classes].
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from harness.errors import UserError

ONNX = "model.onnx"
INPUT, OUTPUT = "images", "logits"
PACKAGES = ("onnx", "onnxscript", "onnxruntime")
TOLERANCE = 1e-4
"""Largest difference of a logit from torch's, times the largest logit where that is above 1."""
BATCHES = (1, 3)  # numbers of images that are checked; the graph is traced with another one
TRACED = 2  # with a single image, torch would take the number for a constant


def missing_packages() -> list[str]:
    """Return the packages of ONNX that are not installed. They are not imported."""
    return [name for name in PACKAGES if importlib.util.find_spec(name) is None]


def write_onnx(folder: Path, module: nn.Module, channels: int, side: int) -> dict[str, Any]:
    """Write `model.onnx`, and return its opset and its largest difference from torch's logits.

    `module` is in eval mode on the CPU and takes images [N, channels, side, side].

    Raises:
        UserError: the network cannot be written as ONNX, or its logits differ there.
    """
    path = folder / ONNX
    example = torch.zeros(TRACED, channels, side, side)
    batch = torch.export.Dim("batch", min=1, max=65536)
    try:
        with _quiet():
            program: Any = torch.onnx.export(
                module,
                (example,),
                dynamo=True,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes=({0: batch},),
                verbose=False,
            )
            program.save(path, external_data=False)
    except (MemoryError, KeyboardInterrupt):
        raise
    except Exception as error:  # torch, onnxscript and onnx raise many kinds
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise UserError(
            f"the network cannot be written as ONNX ({reason[:200]}): leave it out with onnx=false"
        ) from error
    return {"opset": int(program.model.opset_imports[""]), "largest_difference": _check(
        path, module, channels, side
    )}  # fmt: skip


@torch.no_grad()
def _check(path: Path, module: nn.Module, channels: int, side: int) -> float:
    """Return the largest difference of the logits of onnxruntime from those of torch.

    Raises UserError if it is above the tolerance.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    generator = torch.Generator().manual_seed(0)
    largest = 0.0
    for count in BATCHES:
        images = torch.randn(count, channels, side, side, generator=generator)
        expected = module(images)
        (logits,) = session.run([OUTPUT], {INPUT: images.numpy()})
        difference = float((torch.from_numpy(logits) - expected).abs().max())
        limit = TOLERANCE * max(1.0, float(expected.abs().max()))
        if not difference <= limit:  # also where one of them is NaN
            raise UserError(
                f"onnxruntime gives other logits than torch: they differ by {difference:.2g}, and "
                f"{limit:.2g} is allowed; leave ONNX out with onnx=false"
            )
        largest = max(largest, difference)
    return largest


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hide the progress and the notes of torch.onnx, which say nothing about this network."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
