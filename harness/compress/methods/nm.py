"""N:M sparsity (Mishra et al. 2021, arXiv 2104.08378): of every 4 weights the smallest |w| go.

A group is four consecutive input channels of one output channel at one place of the kernel, the
layout that sparse tensor cores take. Sparsity 0.5 is 2:4. Layers whose inputs are no multiple of 4
(the first convolution, depthwise ones) are left dense.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from harness.compress.masks import Masks
from harness.compress.methods import Request
from harness.errors import UserError

M = 4


def suited(model: nn.Module, names: Sequence[str], resolution: int) -> list[str]:
    """The weights whose input channels come in groups of 4. Raises UserError where none do."""
    parameters = dict(model.named_parameters())
    found = [name for name in names if parameters[name].shape[1] % M == 0]
    if not found:
        raise UserError(
            "compress.method: nm finds no layer whose input channels are a multiple of 4; "
            "choose a greater width, or another method."
        )
    return found


def compress(model: nn.Module, request: Request) -> Masks:
    """See `methods`. Every group has exactly 4 * sparsity zeros; ties go by position."""
    parameters = dict(model.named_parameters())
    gone = round(M * request.sparsity)
    masks = {}
    for name in request.names:
        score = parameters[name].detach().float().cpu().abs()
        if request.previous is not None:
            score[~request.previous[name].cpu()] = -1.0
        groups = score.movedim(1, -1)
        shape = groups.shape
        order = groups.reshape(-1, M).argsort(dim=1, stable=True)
        keep = torch.ones_like(order, dtype=torch.bool).scatter_(1, order[:, :gone], False)
        masks[name] = keep.reshape(shape).movedim(-1, 1).contiguous()
    return masks
