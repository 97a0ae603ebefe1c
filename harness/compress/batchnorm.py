"""Estimate the batch-norm statistics again, for a network whose weights were changed by pruning.

After pruning, the running averages are still those of the network before pruning. They are replaced
by averages over training images without augmentation, because evaluation does not augment images.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn


@torch.no_grad()
def reestimate(model: nn.Module, batches: Iterable[torch.Tensor]) -> None:
    """Replace the running statistics by their plain average over `batches`, in place.

    Batches are normalised images, float [n, 3, H, W]. Every batch has the same weight in the
    average, so all should have the same size. Every rank needs the same batches in the same order.
    Meanwhile only the batch-norm layers are in training mode, so dropout is off. Afterwards each
    module has its former mode and momentum. A model without batch norm is not changed.

    Raises:
        ValueError: `batches` is empty.
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
    batch_count = 0
    try:
        for images in batches:
            model(images)
            batch_count += 1
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for module, mode in modes.items():
            module.training = mode
    if not batch_count:
        raise ValueError("there is no batch to estimate the batch-norm statistics from")
