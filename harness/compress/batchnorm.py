"""Batch-norm statistics of a network whose weights were just changed by pruning.

The running averages are those of the network before. They are estimated anew from training images
without augmentation, because the network will be evaluated on such images.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn


@torch.no_grad()
def reestimate(model: nn.Module, batches: Iterable[torch.Tensor]) -> None:
    """Replace the running statistics by their plain average over `batches`, in place.

    Batches are normalised images, float [n, 3, H, W]. Each has the same weight, so give full
    batches, in the same order on every rank. Only batch norm is in training mode (dropout is off).
    Modes and momenta are restored; a model without batch norm is not changed.

    Raises:
        ValueError: there is no batch.
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
        norm.momentum = None  # torch then computes a cumulative average
        norm.train()
    number = 0
    try:
        for images in batches:
            model(images)
            number += 1
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for module, mode in modes.items():
            module.training = mode
    if not number:
        raise ValueError("there is no batch to estimate the batch-norm statistics from")
