"""Builds the engine of a run: `deepspeed` (the default) or `ddp`, the plain twin that checks it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from harness.errors import UserError
from harness.models.conversions import synchronise_batch_norm
from harness.run_schema import RunConfig
from harness.schema import RecipeConfig
from harness.train.distributed import World
from harness.train.engine_base import Engine
from harness.train.engine_ddp import Ddp


def make_engine(
    module: nn.Module,
    recipe: RecipeConfig,
    run: RunConfig,
    world: World,
    masks: Mapping[str, torch.Tensor] | None = None,
    micro_batches: int = 1,
) -> Engine:
    """Return the engine that `run` names, around a module that is on its device already.

    `micro_batches` is the number of micro-batches of a step. The module is converted in place: to
    batch-norm statistics over all ranks where the recipe says so, and to channels_last where `run`
    does.

    Raises:
        UserError: batch-norm statistics over all ranks on CPU, which torch does not offer, or of
            layers that cannot be converted.
    """
    if recipe.sync_bn and world.size > 1:
        if world.device.type == "cpu":
            raise UserError(
                f"recipe.sync_bn works between GPUs only, not for {world.size} processes on CPU: "
                "set run.processes=1, which has the same statistics, or run.device=cuda."
            )
        module = synchronise_batch_norm(module)
    if run.engine == "deepspeed":
        # imported here: DeepSpeed takes seconds to import, and the twin works without it
        from harness.train.engine_deepspeed import DeepSpeed

        return DeepSpeed(module, recipe, run, world, masks or {}, micro_batches)
    if run.channels_last:
        module.to(memory_format=torch.channels_last)
    return Ddp(module, recipe, world, masks or {})
