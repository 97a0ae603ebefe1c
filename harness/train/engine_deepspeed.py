"""The DeepSpeed engine: ZeRO 0 or 1, torch autocast, gradient accumulation, our masks and rates.

It is launched from plain environment variables (`distributed.connected`), never by DeepSpeed's own
launcher. On CPU no operator is compiled: gloo does the reduction.
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

from harness.schema import RecipeConfig, RunConfig
from harness.train.distributed import World
from harness.train.engine import MicroBatch, hold, pruned_places
from harness.train.optim import loss_function, make_optimizer

logger.setLevel(logging.ERROR)
# Without this entry DeepSpeed compiles a shared-memory operator when a process on CPU starts: 40 to
# 80 s, and every node needs a C++ compiler. The name is internal to DeepSpeed, so the minor version
# is pinned, and tests/train/test_two_ranks.py fails when a start compiles something.
vars(deepspeed.ops).setdefault("__compatible_ops__", {})["deepspeed_shm_comm"] = False


class DeepSpeed:
    """See `engine.Engine`."""

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
        self.accumulate = micro_batches
        self.optimizer = make_optimizer(module, recipe.optimizer)
        weights = sum(parameter.numel() for parameter in module.parameters())
        config = {
            # DeepSpeed only counts with these numbers; a step's micro-batches are ours
            "train_micro_batch_size_per_gpu": 1,
            "gradient_accumulation_steps": micro_batches,
            "zero_optimization": {
                "stage": run.zero_stage,
                "reduce_bucket_size": weights,  # by default a buffer of 2 GB for each engine
            },
            "zero_allow_untested_optimizer": True,  # torch's SGD under ZeRO 1
            "torch_autocast": {
                "enabled": recipe.precision == "bf16_autocast",
                "dtype": "bfloat16",
                # no parameter's gradient is rounded to bf16, as ZeRO 1 would by default
                "lower_precision_safe_modules": [],
            },
            "gradient_clipping": 0.0,  # by default it clips at 1.0, silently and unlike the twin
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
            # only now: DeepSpeed's first broadcast refuses such strides. Under ZeRO 1 the weights
            # stay views of flat buffers; convolutions then follow the format of their input.
            self.module.to(memory_format=torch.channels_last)
        self.mask(masks)

    def mask(self, masks: Mapping[str, torch.Tensor]) -> None:
        """See `engine.Engine`."""
        self.places = pruned_places(self.module, masks)
        if self.places and self.shards:
            self.places += list(zip(self.shards, self._pruned_in_shards(), strict=True))
        hold(self.places, self.optimizer)

    @torch.no_grad()
    def _pruned_in_shards(self) -> list[torch.Tensor]:
        """Where the shards hold pruned weights: DeepSpeed's setter says which part is whose.

        The padding at the end of a shard, zero by construction, counts as pruned.
        """
        weights = [shard.clone() for shard in self.shards]
        gone = {id(weight): places for weight, places in self.places}
        for parameter in self.module.parameters():
            kept = torch.ones_like(parameter)
            if id(parameter) in gone:
                kept.masked_fill_(gone[id(parameter)], 0.0)
            safe_set_full_fp32_param(parameter, kept)
        found = [shard == 0.0 for shard in self.shards]
        for shard, weight in zip(self.shards, weights, strict=True):
            shard.copy_(weight)
        return found

    def train_step(self, micro_batches: Sequence[MicroBatch], lr: float) -> torch.Tensor:
        """See `engine.Engine`."""
        if len(micro_batches) != self.accumulate:
            raise ValueError(f"{len(micro_batches)} micro-batches, {self.accumulate} expected")
        for group in self.wrapped.param_groups:
            group["lr"] = lr
        self.module.train()
        examples = sum(len(images) for images, _ in micro_batches)
        total = torch.zeros((), device=self.world.device)
        for images, targets in micro_batches:
            loss = loss_function(self.recipe, self.engine(images), targets)
            loss = loss * (len(images) / examples)
            self.engine.backward(loss, scale_wrt_gas=False)
            self.engine.step()  # moves the weights at the last micro-batch
            total += loss.detach()
        hold(self.places, self.optimizer)
        return total

    def state(self) -> dict[str, Any]:
        """See `engine.Engine`. The fp32 copies equal the model's weights, so they are not saved."""
        return {"model": self.module.state_dict(), "optimizer": self.optimizer.state_dict()}

    @torch.no_grad()
    def load_state(self, state: dict[str, Any]) -> None:
        """See `engine.Engine`."""
        self.module.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.shards:
            for parameter in self.module.parameters():
                safe_set_full_fp32_param(parameter, parameter)

    def close(self) -> None:
        """See `engine.Engine`."""
        self.engine.destroy()
        del self.engine, self.wrapped
        gc.collect()  # DeepSpeed's engine refers to itself, so nothing else frees its buffers
