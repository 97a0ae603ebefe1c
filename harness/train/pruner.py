"""Pruning of one stage's model, which every rank repeats and compares with the others."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from harness.compress import gradual
from harness.compress import masks as pruning
from harness.compress.channels import output_channels
from harness.compress.layers import make_request, none_left, to_prune
from harness.compress.methods import METHODS
from harness.errors import UserError
from harness.schema import StageConfig
from harness.train import checkpoint
from harness.train.distributed import World


class Pruner:
    """Prunes the model of one stage by the method that its config names.

    `names` are the weights that may be pruned, `unpruned` all other parameters with more than one
    dimension. Both are empty for a stage that prunes nothing.
    """

    def __init__(
        self,
        config: StageConfig,
        dense: nn.Module,
        resolution: int,
        world: World,
        build: Callable[[float], nn.Module],
    ):
        """`dense` is the stage's model as it was built; `build(times)` makes it `times` as wide."""
        self.config, self.resolution, self.world, self.build = config, resolution, world, build
        self.dense_channels = output_channels(dense)
        self.names: list[str] = []
        self.unpruned: list[str] = []
        if (prune := config.prune) is not None:
            self.names = to_prune(prune, config.model, dense, resolution)
            weights = [name for name, p in dense.named_parameters() if p.ndim > 1]
            self.unpruned = [name for name in weights if name not in self.names]

    def prune(
        self, module: nn.Module, sparsity: float, previous: pruning.Masks | None
    ) -> pruning.Masks | None:
        """Return new masks for the model, or None where the method removed channels in place.

        Raises:
            RuntimeError: the ranks' results differ.
            UserError: no weight would be left, or the masks are those of other weights.
        """
        prune = self.config.prune
        assert prune is not None
        seed, side, build = self.config.seed, self.resolution, self.build
        request = make_request(prune, self.names, seed, side, build, sparsity, previous)
        masks = METHODS.get(prune.method).compress(module, request)
        family = self.config.model.family
        if masks is not None and masks.keys() != set(self.names):
            raise UserError(
                f"compress.method: {prune.method} returned masks for other weights than those of "
                "its request; return one for each name in `request.names`."
            )
        if masks and not any(mask.any() for mask in masks.values()):
            raise none_left(sparsity, sum(mask.numel() for mask in masks.values()))
        own = pruning.mask_hash(masks) if masks else checkpoint.weights_hash(module.state_dict())
        hashes = set(self.world.gather(own))
        if len(hashes) > 1:
            raise RuntimeError(f"ranks pruned a {family} differently: {', '.join(sorted(hashes))}")
        return masks

    def prune_gradually(
        self, module: nn.Module, step: int, steps: int, previous: pruning.Masks | None
    ) -> pruning.Masks | None:
        """Return the masks that gradual pruning sets after `step` of `steps`; None: no change."""
        prune = self.config.prune
        if prune is None or prune.gradual_end is None:
            return None
        end = gradual.end_step(steps, prune.gradual_end)
        if not gradual.is_due(step, end):
            return None
        return self.prune(module, gradual.sparsity_at(step, prune.sparsity, end), previous)

    def sparsity(self, deployed: nn.Module, masks: pruning.Masks | None) -> float:
        """Return the share that is gone: of the weights under the masks, or of the channels."""
        if masks is not None:
            return pruning.achieved(masks)
        remaining = output_channels(deployed)
        counted = [name for name in remaining if f"{name}.weight" in self.names]
        before = sum(self.dense_channels[name] for name in counted)
        return 1.0 - sum(remaining[name] for name in counted) / before if before else 0.0
