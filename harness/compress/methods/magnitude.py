"""The smallest |w| go: of all layers together (`global`), or the same share of each (`layer`)."""

from __future__ import annotations

from torch import nn

from harness.compress.masks import Masks, magnitude_masks
from harness.compress.methods import Request


def compress(model: nn.Module, request: Request) -> Masks:
    """See `methods`."""
    return magnitude_masks(model, request.sparsity, request.names, request.previous, request.scope)
