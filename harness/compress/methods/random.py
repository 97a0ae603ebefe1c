"""The baseline: weights go in an order drawn from the seed, the same at every level."""

from __future__ import annotations

import torch
from torch import nn

from harness import rng
from harness.compress.masks import Masks, lowest
from harness.compress.methods import Request


def compress(model: nn.Module, request: Request) -> Masks:
    """See `methods`. Each weight's place in the order depends on seed, name and position only."""
    parameters = dict(model.named_parameters())
    scores = {}
    for name in request.names:
        generator = torch.Generator().manual_seed(rng.derive(request.seed, f"prune {name}"))
        scores[name] = torch.rand(parameters[name].shape, generator=generator)
    return lowest(scores, request.sparsity, request.scope, request.previous)
