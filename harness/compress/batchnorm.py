"""Batch-norm statistics of a network whose weights were just changed by pruning.

The running averages belong to the network before. They are taken anew over un-augmented training
images, which is what the network will be evaluated on.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn


@torch.no_grad()
def reestimate(model: nn.Module, batches: Iterable[torch.Tensor]) -> None:
    """Replace the running statistics by their plain average over `batches`, in place.

    Batches are normalised images, float [n, 3, H, W], each of equal weight: give full ones, in the
    same order on every rank. Only batch norm is in training mode meanwhile (dropout stays off).
    Modes and momenta are as before afterwards; a model without batch norm is left as it is.

    Raises:
        ValueError: no batch, which would leave no statistics at all.
    """
    norms = [
        module
        for module in model.modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.track_running_stats
    ]
    if not norms:
        return
    modes = {module: module.training for module in model.modules()}
    momenta = [norm.momentum for norm in norms]
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch's spelling of a cumulative average
        norm.train()
    seen = 0
    try:
        for images in batches:
            model(images)
            seen += 1
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for module, mode in modes.items():
            module.training = mode
    if not seen:
        raise ValueError("there is no batch to estimate the batch-norm statistics from")
