"""The DeepSpeed engine: ZeRO 0 or 1, torch autocast, gradient accumulation, our masks and rates.

It is launched from plain environment variables (`distributed.connected`), not by DeepSpeed's own
launcher. No operator is compiled on CPU: gloo does the reduction.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import deepspeed
import deepspeed.ops
import torch
from deepspeed.utils import logger, safe_set_full_fp32_param
from torch import nn

from harness.run_schema import RunConfig
from harness.schema import RecipeConfig
from harness.train.distributed import World
from harness.train.engine_base import Engine, MicroBatch, PrunedWeight, zero_pruned
from harness.train.optim import loss_function, make_optimizer

logger.setLevel(logging.ERROR)
# Without this entry DeepSpeed compiles a shared-memory operator when a process on CPU starts: 40 to
# 80 s, and every node needs a C++ compiler. The name is internal to DeepSpeed, so the minor version
# is pinned, and tests/train/test_two_ranks.py fails when a start compiles something.
vars(deepspeed.ops).setdefault("__compatible_ops__", {})["deepspeed_shm_comm"] = False


class DeepSpeed(Engine):
    """See `engine_base.Engine`."""

    def __init__(
        self,
        module: nn.Module,
        recipe: RecipeConfig,
        run: RunConfig,
        world: World,
        masks: Mapping[str, torch.Tensor],
        micro_batches: int,
    ):
        self.recipe = recipe
        self.world = world
        self.micro_batches = micro_batches
        self.optimizer = make_optimizer(module, recipe.optimizer)
        config = {
            # DeepSpeed only counts with these two numbers; `train_step` gets the micro-batches
            "train_micro_batch_size_per_gpu": 1,
            "gradient_accumulation_steps": micro_batches,
            "zero_optimization": {
                "stage": run.zero_stage,
                # the default is a buffer of 2 GB for each engine
                "reduce_bucket_size": sum(p.numel() for p in module.parameters()),
            },
            "zero_allow_untested_optimizer": True,  # torch's SGD under ZeRO 1
            "torch_autocast": {
                "enabled": recipe.precision == "bf16_autocast",
                "dtype": "bfloat16",
                # by default ZeRO 1 rounds the gradients of these modules to bf16
                "lower_precision_safe_modules": [],
            },
            "gradient_clipping": 0.0,  # the default is to clip at 1.0, which the twin does not do
            "steps_per_print": None,
            "timers": {"throughput": {"enabled": False}},  # it waits for the GPU at every step
        }
        self.engine, self.wrapped, _, _ = deepspeed.initialize(
            model=module, optimizer=self.optimizer, config=config, dist_init_required=False
        )
        self.module: nn.Module = self.engine.module
        self.shards: list[torch.Tensor] = []  # ZeRO 1: this rank's part of the fp32 copies
        if run.zero_stage:
            self.shards = self.wrapped.single_partition_of_fp32_groups
        elif run.channels_last:
            # After `initialize`, because DeepSpeed's first broadcast refuses such strides. Under
            # ZeRO 1 the weights stay views of flat buffers, and convolutions follow the format of
            # their input.
            self.module.to(memory_format=torch.channels_last)
        self.set_masks(masks)

    def _pruned_weights(self, masks: Mapping[str, torch.Tensor]) -> list[PrunedWeight]:
        """Return each masked weight, and each fp32 shard of ZeRO 1, with its pruned positions."""
        weights = super()._pruned_weights(masks)
        return [*weights, *self._pruned_shards(masks)] if weights and self.shards else weights

    @torch.no_grad()
    def _pruned_shards(self, masks: Mapping[str, torch.Tensor]) -> list[PrunedWeight]:
        """Return each shard with the positions of the pruned weights in it.

        Only DeepSpeed knows which part of a weight is in which shard. So its setter writes the
        masks into the shards, the positions are where the shards are then zero, and the shards get
        their values back. The padding at the end of a shard, which is always zero, counts as
        pruned.
        """
        values = [shard.clone() for shard in self.shards]
        for name, parameter in self.module.named_parameters():
            mask = torch.ones_like(parameter)
            if name in masks:
                mask.copy_(masks[name])
            safe_set_full_fp32_param(parameter, mask)
        pruned = [(shard, shard == 0.0) for shard in self.shards]
        for shard, value in zip(self.shards, values, strict=True):
            shard.copy_(value)
        return pruned

    def train_step(self, micro_batches: Sequence[MicroBatch], lr: float) -> torch.Tensor:
        """See `engine_base.Engine`."""
        if len(micro_batches) != self.micro_batches:
            raise ValueError(f"{len(micro_batches)} micro-batches, expected {self.micro_batches}")
        for group in self.wrapped.param_groups:
            group["lr"] = lr
        self.module.train()
        examples = sum(len(images) for images, _ in micro_batches)
        total = torch.zeros((), device=self.world.device)
        for images, targets in micro_batches:
            loss = loss_function(self.recipe, self.engine(images), targets)
            loss = loss * (len(images) / examples)
            self.engine.backward(loss, scale_wrt_gas=False)
            self.engine.step()  # updates the weights at the last micro-batch only
            total += loss.detach()
        zero_pruned(self.pruned, self.optimizer)
        return total

    @torch.no_grad()
    def load_state(self, state: dict[str, Any]) -> None:
        """See `engine_base.Engine`. ZeRO's fp32 copies equal the weights and are in no state."""
        super().load_state(state)
        if self.shards:
            for parameter in self.module.parameters():
                safe_set_full_fp32_param(parameter, parameter)

    def close(self) -> None:
        """See `engine_base.Engine`."""
        self.engine.destroy()
        del self.engine, self.wrapped
        gc.collect()  # DeepSpeed's engine refers to itself, so nothing else frees its buffers
