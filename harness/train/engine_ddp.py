"""The engine in plain torch: DistributedDataParallel on several ranks, the module itself on one."""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Mapping, Sequence

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from harness.schema import RecipeConfig
from harness.train.distributed import World
from harness.train.engine_base import Engine, MicroBatch, autocast, zero_pruned
from harness.train.optim import loss_function, make_optimizer


class Ddp(Engine):
    """See `engine_base.Engine`."""

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
        self.optimizer = make_optimizer(module, recipe.optimizer)
        self.pruned = self._pruned_weights(masks)
        self.ddp: DistributedDataParallel | None = None
        if world.size > 1:
            devices = [world.device] if world.device.type == "cuda" else None
            # Surplus `slice` uses a part of each weight. The gradient of a channels-last weight is
            # then contiguous. DDP copies such a gradient, which is correct, and warns of it.
            warnings.filterwarnings("ignore", "Grad strides do not match", UserWarning)
            with warnings.catch_warnings():  # newer torch calls the argument forward_sync_buffers
                warnings.filterwarnings("ignore", ".*broadcast_buffers", FutureWarning)
                self.ddp = DistributedDataParallel(
                    module, device_ids=devices, broadcast_buffers=False
                )

    def train_step(self, micro_batches: Sequence[MicroBatch], lr: float) -> torch.Tensor:
        """See `engine_base.Engine`."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        if not self.module.training:  # setting the mode again takes 0.1 ms for a small model
            self.module.train()
        self.optimizer.zero_grad(set_to_none=True)
        batch_size = sum(len(images) for images, _ in micro_batches)
        losses = []
        for number, (images, targets) in enumerate(micro_batches, start=1):
            # ranks exchange gradients in the backward pass of the last micro-batch only
            is_last = number == len(micro_batches)
            with self.ddp.no_sync() if self.ddp and not is_last else contextlib.nullcontext():
                with autocast(self.recipe, self.world.device):
                    logits = (self.ddp or self.module)(images)
                loss = loss_function(self.recipe, logits, targets)
                # One micro-batch has factor 1. The multiplication would launch another kernel, and
                # in the step of a small model on a GPU most of the time goes into launches.
                if len(micro_batches) > 1:
                    loss = loss * (len(images) / batch_size)
                loss.backward()
            losses.append(loss.detach())
        self.optimizer.step()
        zero_pruned(self.pruned, self.optimizer)
        return functools.reduce(torch.add, losses)

    def close(self) -> None:
        """See `engine_base.Engine`."""
        self.ddp = None
