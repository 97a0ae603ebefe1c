"""The DeepSpeed engine: ZeRO 0 or 1, torch autocast, gradient accumulation, our masks and rates.

It is launched from plain environment variables (`distributed.connected`), never by DeepSpeed's own
launcher. On CPU no operator is compiled: gloo does the reduction.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from harness.schema import RecipeConfig, RunConfig
from harness.train.distributed import World
from harness.train.engine import MicroBatch, hold_masks, on_device
from harness.train.optim import loss_function, make_optimizer

os.environ.setdefault("DS_LOG_LEVEL", "error")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of its own imports
    import deepspeed
    import deepspeed.ops
    from deepspeed.utils import logger, safe_get_full_fp32_param, safe_set_full_fp32_param

logger.setLevel(logging.ERROR)
# Without this, DeepSpeed compiles a shared-memory operator at start (40 to 80 s, and a compiler on
# every node). The name is internal, hence the guard and the pinned minor version.
if isinstance(getattr(deepspeed.ops, "__compatible_ops__", None), dict):
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False

FP32_SHARDS = "single_partition_of_fp32_groups"


class DeepSpeed:
    """See `engine.Engine`."""

    def __init__(
        self,
        module: nn.Module,
        recipe: RecipeConfig,
        run: RunConfig,
        world: World,
        masks: Mapping[str, torch.Tensor] | None,
        micro_batches: int,
    ):
        self.recipe = recipe
        self.world = world
        self.zero = run.zero_stage
        self.accumulate = micro_batches
        self.masks = on_device(masks, world.device)
        share = recipe.batch_size // world.size
        micro = -(-share // micro_batches)
        config = {
            "train_micro_batch_size_per_gpu": micro,
            "gradient_accumulation_steps": micro_batches,
            "train_batch_size": micro * micro_batches * world.size,
            "zero_optimization": {"stage": run.zero_stage},
            "zero_allow_untested_optimizer": True,  # torch's SGD under ZeRO 1
            "zero_force_ds_cpu_optimizer": False,
            "torch_autocast": {"enabled": recipe.precision == "bf16_autocast", "dtype": "bfloat16"},
            "gradient_clipping": 0.0,  # by default it clips at 1.0, silently unlike the twin
            "steps_per_print": 2**31,
        }
        self.optimizer = make_optimizer(module, recipe.optimizer)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.engine, self.wrapped, _, _ = deepspeed.initialize(
                model=module, optimizer=self.optimizer, config=config, dist_init_required=False
            )
        self.module = self.engine.module

    def train_step(self, micro_batches: Sequence[MicroBatch], lr: float) -> torch.Tensor:
        """See `engine.Engine`."""
        if len(micro_batches) != self.accumulate:
            raise ValueError(f"{len(micro_batches)} micro-batches, {self.accumulate} expected")
        for group in self.wrapped.param_groups:
            group["lr"] = lr
        self.engine.train()
        examples = sum(len(images) for images, _ in micro_batches)
        total = torch.zeros((), device=self.world.device)
        for images, targets in micro_batches:
            share = len(images) / examples
            loss = loss_function(self.recipe, self.engine(images), targets)
            # DeepSpeed divides by the number of micro-batches, as if they were of one size
            self.engine.backward(loss * (share * self.accumulate))
            self.engine.step()
            total += loss.detach() * share
        if self.zero == 0:
            hold_masks(self.module, self.masks)
        else:
            self._hold_sharded()
        return total

    @torch.no_grad()
    def _hold_sharded(self) -> None:
        """Masks under ZeRO 1, where the weights are rewritten from shards: set the shards too."""
        parameters = dict(self.module.named_parameters())
        for name, mask in self.masks.items():
            parameter = parameters[name]
            safe_set_full_fp32_param(parameter, safe_get_full_fp32_param(parameter) * mask)
            parameter.mul_(mask)

    def state(self) -> dict[str, Any]:
        """See `engine.Engine`. Under ZeRO 1 the optimizer's part is this rank's shard."""
        if self.zero == 0:
            return {"model": self.module.state_dict(), "optimizer": self.optimizer.state_dict()}
        whole = self.wrapped.state_dict()
        shard = {"base_optimizer_state": whole["base_optimizer_state"]}
        shard[FP32_SHARDS] = [tensor.detach() for tensor in whole[FP32_SHARDS]]
        return {"model": self.module.state_dict(), "optimizer": shard}

    def load_state(self, state: dict[str, Any]) -> None:
        """See `engine.Engine`."""
        self.module.load_state_dict(state["model"])
        if self.zero == 0:
            self.optimizer.load_state_dict(state["optimizer"])
            return
        # DeepSpeed expects objects of its own around the tensors; only the tensors were saved
        mine = {**self.wrapped.state_dict(), **state["optimizer"]}
        self.wrapped.load_state_dict([mine] * self.world.size)
