"""Channel pruning: whole channels of the smallest norm are removed, so that layers become narrower.

`sparsity` s leaves the shapes of the plain model at width * (1 - s). The tensor code is in
`harness/compress/channels.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from harness.compress.methods.base import Method, Request, register_method
from harness.models import registry
from harness.schema import TrialConfig

if TYPE_CHECKING:
    import torch
    from torch import nn


class Channel(Method):
    """See the module."""

    name = "channel"
    tried_when_planned = True
    protects = ("classifier",)  # its outputs are the classes

    def misfits(self, trial: TrialConfig, levels: Sequence[float]) -> Iterator[str]:
        """Refuse a global scope, families that do not suit the method, and rewinding of weights."""
        if trial.compress.scope != "layer":
            yield (
                "compress.scope: method channel removes the same share of the channels of every "
                "layer: set layer"
            )
        if misfit := registry.unsuited(
            "channel pruning", trial.model.family, lambda family: family.removable_channels
        ):
            yield f"compress.method: {misfit}"
        if trial.compress.rewind == "weights":
            yield (
                "compress.rewind: method channel changes the shapes of the weights, so early ones "
                "do not fit: set learning_rate or fine_tuning, which continue from what remains"
            )

    def suited(self, model: nn.Module, names: Sequence[str], resolution: int) -> list[str]:
        """Return the weights whose layers share channels only with layers that are in `names`."""
        from harness.compress.channels import removable

        return removable(model, names, resolution)

    def compress(self, model: nn.Module, request: Request) -> None:
        """Remove channels in place until the shapes are those of the plain, narrower model.

        Raises:
            UserError: layers that share channels have different widths in the plain model.
        """
        from harness.compress.channels import output_channels, remove_channels

        assert request.build is not None
        plain = output_channels(request.build(1 - request.sparsity))
        remove_channels(model, request.names, plain, request.sparsity, request.resolution)

    def fit(self, model: nn.Module, state: Mapping[str, torch.Tensor]) -> None:
        """Make the layers of a model as narrow as the weights `state`."""
        from harness.compress.channels import fit_shapes

        fit_shapes(model, state)


register_method(Channel())
