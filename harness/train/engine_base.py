"""What an engine is, and what both engines share: autocast, and masks held after each step."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from harness.schema import RecipeConfig

MicroBatch = tuple[torch.Tensor, torch.Tensor]
"""Images float [n, 3, H, W] and targets (labels int64 [n], or shares float [n, classes])."""
PrunedWeight = tuple[torch.Tensor, torch.Tensor]
"""A weight, and a bool tensor of its shape that is true where the weight is pruned."""


class Engine(ABC):
    """One model in training on this rank, with its optimizer. `module` is the plain model.

    The caller gives the learning rate of every step. The engine applies the masks: after each
    optimizer step it sets the pruned weights, their fp32 copies and their optimizer state to zero.
    It does not use hooks of the model.
    """

    module: nn.Module
    optimizer: torch.optim.Optimizer
    pruned: list[PrunedWeight]

    @abstractmethod
    def train_step(self, micro_batches: Sequence[MicroBatch], lr: float) -> torch.Tensor:
        """Do forward, backward, optimizer step and masks; return this rank's mean loss, detached.

        Every sample has the same weight, however the batch is cut into micro-batches. The call does
        not wait for a GPU.
        """

    def set_masks(self, masks: Mapping[str, torch.Tensor]) -> None:
        """Replace the masks, and set the weights that they prune to zero immediately."""
        self.pruned = self._pruned_weights(masks)
        zero_pruned(self.pruned, self.optimizer)

    def _pruned_weights(self, masks: Mapping[str, torch.Tensor]) -> list[PrunedWeight]:
        """Return each masked weight with its pruned positions, on its device."""
        parameters = dict(self.module.named_parameters())
        return [
            (parameters[name], ~mask.to(parameters[name].device)) for name, mask in masks.items()
        ]

    def state(self) -> dict[str, Any]:
        """Return the state of model and optimizer as tensors and plain values.

        Under ZeRO 1 the optimizer's part is this rank's shard.
        """
        return {"model": self.module.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from a `state`, also of the other engine unless one of them is sharded."""
        self.module.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])

    @abstractmethod
    def close(self) -> None:
        """Release everything that the engine holds except the module."""


def autocast(recipe: RecipeConfig, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Return the context of a forward pass: bf16 if the recipe's precision is that, else fp32.

    Parameters and batch norm stay fp32 in both.
    """
    if recipe.precision == "bf16_autocast":
        return torch.autocast(device.type, torch.bfloat16)
    return contextlib.nullcontext()


@torch.no_grad()
def zero_pruned(pruned: Iterable[PrunedWeight], optimizer: torch.optim.Optimizer) -> None:
    """Set pruned weights and the optimizer's state for them to zero, also where they are NaN."""
    for weight, positions in pruned:
        weight.masked_fill_(positions, 0.0)
        for value in optimizer.state.get(weight, {}).values():
            if isinstance(value, torch.Tensor) and value.shape == positions.shape:
                value.masked_fill_(positions, 0.0)
