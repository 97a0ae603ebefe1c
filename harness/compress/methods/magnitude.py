"""Magnitude pruning: the weights of the smallest |w| are removed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.compress.methods.base import Method, Request, register_method

if TYPE_CHECKING:
    from torch import nn

    from harness.compress.masks import Masks


class Magnitude(Method):
    """See the module."""

    name = "magnitude"
    works_gradually = True
    suits_every_model = True

    def compress(self, model: nn.Module, request: Request) -> Masks:
        """Return masks that prune the smallest |w| of all layers together, or of each layer."""
        from harness.compress.masks import magnitude_masks

        names, previous, scope = request.names, request.previous, request.scope
        return magnitude_masks(model, request.sparsity, names, previous, scope)


register_method(Magnitude())
