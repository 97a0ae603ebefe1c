"""Random pruning, the baseline: weights are removed in an order that is drawn from the seed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness import rng
from harness.compress.methods.base import Method, Request, register_method

if TYPE_CHECKING:
    from torch import nn

    from harness.compress.masks import Masks


class Random(Method):
    """See the module."""

    name = "random"
    works_gradually = True
    suits_every_model = True

    def compress(self, model: nn.Module, request: Request) -> Masks:
        """Return masks that prune weights in an order drawn from the seed.

        The order depends only on the seed, the weight's name and the position. So every level
        prunes the weights of the level before and the next ones in the same order.
        """
        import torch

        from harness.compress.masks import lowest

        scores = {}
        for name in request.names:
            generator = torch.Generator().manual_seed(rng.derive(request.seed, f"prune {name}"))
            scores[name] = torch.rand(model.get_parameter(name).shape, generator=generator)
        return lowest(scores, request.sparsity, request.scope, request.previous)


register_method(Random())
