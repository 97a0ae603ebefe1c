"""What steps a model: `deepspeed` (the default) and `ddp` (the plain twin that checks it).

An engine owns a module and its optimizer. It is told the learning rate of every step, and holds
the masks: after each optimizer step the pruned weights and their fp32 copies are zero again.
Nothing hooks into the model.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import nn

from harness.schema import RecipeConfig, RunConfig
from harness.train.distributed import World
from harness.train.optim import loss_function, make_optimizer

MicroBatch = tuple[torch.Tensor, torch.Tensor]
"""Images float [n, 3, H, W] and targets (labels int64 [n], or shares float [n, classes])."""


class Engine(Protocol):
    """One model in training on this rank."""

    module: nn.Module

    def train_step(self, micro_batches: Sequence[MicroBatch], lr: float) -> torch.Tensor:
        """Forward, backward, optimizer step, masks; returns this rank's mean loss, detached."""

    def state(self) -> dict[str, Any]:
        """What `load_state` needs to go on: tensors and plain values only."""

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from a `state` of an engine of the same kind."""


def make_engine(
    module: nn.Module,
    recipe: RecipeConfig,
    run: RunConfig,
    world: World,
    masks: Mapping[str, torch.Tensor] | None,
    micro_batches: int = 1,
) -> Engine:
    """The engine that `run` asks for, around a module that lies on its device already.

    `micro_batches` is how many a step has. Modules with batch norm are converted first where the
    recipe wants statistics over all ranks.
    """
    if recipe.sync_bn and world.size > 1:
        module = nn.SyncBatchNorm.convert_sync_batchnorm(module)
    if run.engine == "deepspeed":
        from harness.train.engine_deepspeed import DeepSpeed

        return DeepSpeed(module, recipe, run, world, masks, micro_batches)
    return Ddp(module, recipe, world, masks)


def autocast(recipe: RecipeConfig, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """bf16 in forward where the recipe asks for it; parameters and batch norm stay fp32."""
    if recipe.precision == "bf16_autocast":
        return torch.autocast(device.type, torch.bfloat16)
    return contextlib.nullcontext()


@torch.no_grad()
def hold_masks(module: nn.Module, masks: Mapping[str, torch.Tensor]) -> None:
    """Zero the pruned weights.

    The optimizer may keep a momentum for them: SGD and AdamW work element by element, so it never
    reaches another weight, and what it adds here is taken away after every step.
    """
    parameters = dict(module.named_parameters())
    for name, mask in masks.items():
        parameters[name].mul_(mask)


def on_device(
    masks: Mapping[str, torch.Tensor] | None, device: torch.device
) -> dict[str, torch.Tensor]:
    """Masks as factors 0 and 1 beside the weights."""
    return {name: mask.to(device, torch.float32) for name, mask in (masks or {}).items()}


class Ddp:
    """torch's own: DistributedDataParallel over several ranks, the bare module on one."""

    def __init__(
        self,
        module: nn.Module,
        recipe: RecipeConfig,
        world: World,
        masks: Mapping[str, torch.Tensor] | None,
    ):
        self.module = module
        self.recipe = recipe
        self.world = world
        self.masks = on_device(masks, world.device)
        self.optimizer = make_optimizer(module, recipe.optimizer)
        devices = [world.device] if world.device.type == "cuda" else None
        self.forward: nn.Module = (
            nn.parallel.DistributedDataParallel(module, device_ids=devices, broadcast_buffers=False)
            if world.size > 1
            else module
        )

    def train_step(self, micro_batches: Sequence[MicroBatch], lr: float) -> torch.Tensor:
        """See `Engine`."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.module.train()
        self.optimizer.zero_grad(set_to_none=True)
        examples = sum(len(images) for images, _ in micro_batches)
        total = torch.zeros((), device=self.world.device)
        for number, (images, targets) in enumerate(micro_batches):
            last = number == len(micro_batches) - 1
            wait = isinstance(self.forward, nn.parallel.DistributedDataParallel) and not last
            with self.forward.no_sync() if wait else contextlib.nullcontext():  # type: ignore[operator]
                with autocast(self.recipe, self.world.device):
                    logits = self.forward(images)
                loss = loss_function(self.recipe, logits, targets) * (len(images) / examples)
                loss.backward()
            total += loss.detach()
        self.optimizer.step()
        hold_masks(self.module, self.masks)
        return total

    def state(self) -> dict[str, Any]:
        """See `Engine`."""
        return {"model": self.module.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state(self, state: dict[str, Any]) -> None:
        """See `Engine`."""
        self.module.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
