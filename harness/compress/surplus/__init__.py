"""Additional parameters while a small network trains: a form is a file here, or a path of stages.

`slice` and `fuse` are training graphs: modules that the engine trains, and from which `deployed`
makes exactly the small model. `prune_away` and its control `weak_finish` are paths of ordinary
stages, laid out in `harness/sweep/stage.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from torch import nn

from harness.schema import StageSurplus

Build = Callable[[float], nn.Module]
"""The small model's family at a width that is so many times the small one's, from the seed."""


class Graph(Protocol):
    """A module in training. In training mode it gives logits, or a tuple whose losses add up."""

    reestimate: bool
    """Whether the deployed model's batch-norm statistics have to be taken anew."""

    def begin_step(self, seed: int, step: int, total_steps: int) -> None:
        """Told before each optimizer step: whatever changes or is drawn depends on these only."""

    def active(self) -> str:
        """A name for what is trained at this step: equal names cost equal multiply-adds."""

    def macs(self, resolution: int) -> int:
        """Multiply-adds of one image's forward pass in training, at this step."""

    def deployed(self) -> nn.Module:
        """The small model with the weights that it has now, on the same device."""


def make_graph(surplus: StageSurplus, small: nn.Module, build: Build) -> nn.Module:
    """The training graph around `small`, which the graph may take apart.

    Raises:
        UserError: a model that the form does not suit.
    """
    if surplus.form == "slice":
        from harness.compress.surplus.slice import Sliced

        return Sliced(small, [build(width) for width in surplus.widths], surplus.share)
    from harness.compress.surplus.fuse import Fused

    return Fused(small, surplus.expand)
