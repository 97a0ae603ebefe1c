"""What a stage prunes of its model, and how: the same on all ranks, whatever the method."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import nn

from harness.compress import gradual, methods
from harness.compress import masks as pruning
from harness.compress.layers import to_prune
from harness.compress.methods import channel
from harness.errors import UserError
from harness.schema import StageConfig
from harness.train import checkpoint
from harness.train.distributed import World


class Pruner:
    """Made from the stage's model as it is built: dense. `protected` goes into the record."""

    def __init__(
        self,
        config: StageConfig,
        dense: nn.Module,
        resolution: int,
        world: World,
        build: Callable[[float], nn.Module],
    ):
        """`build` makes the stage's model so many times as wide."""
        self.config, self.resolution, self.world, self.build = config, resolution, world, build
        self.widths = channel.widths(dense)
        self.names: list[str] = []  # of the weights to prune
        self.protected: list[str] = []
        if (prune := config.prune) is not None:
            self.names = to_prune(prune, config.model, dense, resolution)
            every = pruning.prunable(dense, (), {})
            self.protected = [name for name in every if name not in self.names]

    def reshape(self, module: nn.Module, state: Mapping[str, torch.Tensor]) -> None:
        """Make room for the weights `state`, of which channels may be gone."""
        if self.config.prune is not None and self.config.prune.method == "channel":
            channel.fit(module, state)

    def prune(
        self, module: nn.Module, sparsity: float, previous: pruning.Masks | None
    ) -> pruning.Masks | None:
        """New masks for the model, or None and the model itself made narrower.

        Raises:
            RuntimeError: ranks that do not come to the same.
            UserError: no weight would be left.
        """
        prune = self.config.prune
        assert prune is not None
        request = methods.Request(
            sparsity,
            self.names,
            previous,
            prune.scope,
            self.config.seed,
            channel.widths(self.build(1 - sparsity)) if prune.method == "channel" else None,
            self.resolution,
        )
        masks = methods.compress(prune.method, module, request)
        if masks and not any(mask.any() for mask in masks.values()):
            number = sum(mask.numel() for mask in masks.values())
            raise UserError(
                f"compress.sparsity: {sparsity:g} leaves none of the {number:,} prunable weights "
                f"of this {self.config.model.family}; lower it."
            )
        made = pruning.mask_hash(masks) if masks else checkpoint.weights_hash(module.state_dict())
        hashes = set(self.world.gather(made))
        if len(hashes) > 1:
            family, made = self.config.model.family, ", ".join(sorted(hashes))
            raise RuntimeError(f"ranks pruned a {family} differently: {made}")
        return masks

    def further(
        self, module: nn.Module, step: int, steps: int, previous: pruning.Masks | None
    ) -> pruning.Masks | None:
        """Gradual pruning: new masks after `step` of `steps`, or None where none are due."""
        prune = self.config.prune
        if prune is None or prune.gradual_end is None:
            return None
        end = gradual.end_step(steps, prune.gradual_end)
        if not gradual.is_due(step, end):
            return None
        return self.prune(module, gradual.sparsity_at(step, prune.sparsity, end), previous)

    def sparsity(self, deployed: nn.Module, masks: pruning.Masks | None) -> float:
        """The share that is gone: of the weights under the masks, or of the channels."""
        if masks is not None:
            return pruning.achieved(masks)
        left = channel.widths(deployed)
        counted = [name for name in left if f"{name}.weight" in self.names]
        before = sum(self.widths[name] for name in counted)
        return 1.0 - sum(left[name] for name in counted) / before if before else 0.0
