"""What steps a model: `deepspeed` (the default) and `ddp` (the plain twin that checks it).

An engine owns a module and its optimizer. It is told the learning rate of every step, and holds
the masks: after each optimizer step the pruned weights, their fp32 copies and the momentum there
are zero again. Nothing of ours hooks into the model.
"""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from harness.errors import UserError
from harness.schema import RecipeConfig, RunConfig
from harness.train.distributed import World
from harness.train.optim import loss_function, make_optimizer

MicroBatch = tuple[torch.Tensor, torch.Tensor]
"""Images float [n, 3, H, W] and targets (labels int64 [n], or shares float [n, classes])."""


class Engine(Protocol):
    """One model in training on this rank. `module` is the plain model."""

    module: nn.Module

    def train_step(self, micro_batches: Sequence[MicroBatch], lr: float) -> torch.Tensor:
        """Forward, backward, optimizer step, masks; returns this rank's mean loss, detached.

        Every sample counts alike, however the micro-batches are cut. Nothing waits for a GPU.
        """

    def mask(self, masks: Mapping[str, torch.Tensor]) -> None:
        """Hold these masks from now on; what they prune is zero at once."""

    def state(self) -> dict[str, Any]:
        """Model and optimizer: tensors and plain values, under ZeRO 1 this rank's shard."""

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from a `state`, also the other engine's unless one of them is sharded."""

    def close(self) -> None:
        """Give back what the engine holds besides the module."""


def make_engine(
    module: nn.Module,
    recipe: RecipeConfig,
    run: RunConfig,
    world: World,
    masks: Mapping[str, torch.Tensor] | None = None,
    micro_batches: int = 1,
) -> Engine:
    """The engine that `run` asks for, around a module that lies on its device already.

    `micro_batches` is how many a step has. The module is converted in place to statistics over
    all ranks where the recipe wants them, and to channels_last where `run` does.

    Raises:
        UserError: such statistics on CPU, which torch does not offer.
    """
    if recipe.sync_bn and world.size > 1:
        if world.device.type == "cpu":
            raise UserError(
                f"recipe.sync_bn works between GPUs only, not for {world.size} processes on CPU: "
                "set run.processes=1, which has the same statistics, or run.device=cuda."
            )
        module = nn.SyncBatchNorm.convert_sync_batchnorm(module)
    if run.engine == "deepspeed":
        from harness.train.engine_deepspeed import DeepSpeed

        return DeepSpeed(module, recipe, run, world, masks or {}, micro_batches)
    if run.channels_last:
        module.to(memory_format=torch.channels_last)
    return Ddp(module, recipe, world, masks or {})


def autocast(recipe: RecipeConfig, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """bf16 in forward where the recipe asks for it; parameters and batch norm stay fp32."""
    if recipe.precision == "bf16_autocast":
        return torch.autocast(device.type, torch.bfloat16)
    return contextlib.nullcontext()


def pruned_places(
    module: nn.Module, masks: Mapping[str, torch.Tensor]
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Each masked weight, and where it is pruned, on its device."""
    parameters = dict(module.named_parameters())
    return [(parameters[name], ~mask.to(parameters[name].device)) for name, mask in masks.items()]


@torch.no_grad()
def hold(
    places: Iterable[tuple[torch.Tensor, torch.Tensor]], optimizer: torch.optim.Optimizer
) -> None:
    """Zero pruned weights and what the optimizer keeps for them, whatever they hold (also NaN)."""
    for weight, gone in places:
        weight.masked_fill_(gone, 0.0)
        for kept in optimizer.state.get(weight, {}).values():
            if isinstance(kept, torch.Tensor) and kept.shape == gone.shape:
                kept.masked_fill_(gone, 0.0)


class Ddp:
    """torch's own: DistributedDataParallel over several ranks, the bare module on one."""

    def __init__(
        self,
        module: nn.Module,
        recipe: RecipeConfig,
        world: World,
        masks: Mapping[str, torch.Tensor],
    ):
        self.module = module
        self.recipe = recipe
        self.world = world
        self.places = pruned_places(module, masks)
        self.optimizer = make_optimizer(module, recipe.optimizer)
        self.ddp: DistributedDataParallel | None = None
        if world.size > 1:
            devices = [world.device] if world.device.type == "cuda" else None
            # gradients of slices of a weight are contiguous whatever the weight is: a copy each
            warnings.filterwarnings("ignore", "Grad strides do not match", UserWarning)
            with warnings.catch_warnings():  # newer torch calls it forward_sync_buffers
                warnings.filterwarnings("ignore", ".*broadcast_buffers", FutureWarning)
                self.ddp = DistributedDataParallel(
                    module, device_ids=devices, broadcast_buffers=False
                )

    def train_step(self, micro_batches: Sequence[MicroBatch], lr: float) -> torch.Tensor:
        """See `Engine`."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        if not self.module.training:  # setting it anew takes 0.1 ms for a small model
            self.module.train()
        self.optimizer.zero_grad(set_to_none=True)
        examples = sum(len(images) for images, _ in micro_batches)
        losses = []
        for images, targets in micro_batches[:-1]:
            with self.ddp.no_sync() if self.ddp else contextlib.nullcontext():
                losses.append(self._backward(images, targets, len(images) / examples))
        images, targets = micro_batches[-1]
        losses.append(self._backward(images, targets, len(images) / examples))
        self.optimizer.step()
        hold(self.places, self.optimizer)
        return functools.reduce(torch.add, losses)

    def _backward(self, images: torch.Tensor, targets: torch.Tensor, share: float) -> torch.Tensor:
        with autocast(self.recipe, self.world.device):
            logits = (self.ddp or self.module)(images)
        loss = loss_function(self.recipe, logits, targets)
        if share < 1.0:  # a small model's step on a GPU is all launches: this spares some
            loss = loss * share
        loss.backward()
        return loss.detach()

    def mask(self, masks: Mapping[str, torch.Tensor]) -> None:
        """See `Engine`."""
        self.places = pruned_places(self.module, masks)
        hold(self.places, self.optimizer)

    def state(self) -> dict[str, Any]:
        """See `Engine`."""
        return {"model": self.module.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state(self, state: dict[str, Any]) -> None:
        """See `Engine`."""
        self.module.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])

    def close(self) -> None:
        """See `Engine`."""
        self.ddp = None
