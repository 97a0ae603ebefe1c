"""The network that a stage trains: its module, its masks and its additional parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from torch import nn

from harness import rng
from harness.compress import masks as pruning
from harness.compress.methods import METHODS
from harness.compress.surplus import Graph, make_graph
from harness.data.types import Dataset
from harness.models import registry
from harness.models.counts import count
from harness.schema import StageConfig
from harness.train.distributed import World
from harness.train.pruner import Pruner


class Network:
    """The network of one stage, built dense from the stage's seed, on the device.

    `module` is what the engine trains: the stage's model, or the training graph `surplus` around
    it. `reestimate_batch_norm` replaces a module's batch-norm statistics in place by those of
    un-augmented training images.
    """

    def __init__(
        self,
        config: StageConfig,
        dataset: Dataset,
        world: World,
        reestimate_batch_norm: Callable[[nn.Module], None],
    ):
        self.config, self.dataset, self.world = config, dataset, world
        self.reestimate_batch_norm = reestimate_batch_norm
        self.module = self._build().to(world.device)
        self.pruner = Pruner(config, self.module, dataset.resolution, world, self._build)
        self.masks: pruning.Masks | None = None
        self.surplus: Graph | None = None
        self._deployed: nn.Module | None = None
        self._forward_macs: dict[tuple[str, int], int] = {}

    def _build(self, times: float = 1.0) -> nn.Module:
        """Return the stage's model from its seed on the CPU, `times` as wide."""
        classes, side = self.dataset.info.num_classes, self.dataset.resolution
        return registry.build(
            self.config.model, classes, seed=self.config.seed, resolution=side, times=times
        )

    def start_from_parent(self, parent: dict[str, Any]) -> None:
        """Take the final weights of the parent, and prune them as the stage's config says.

        With `prune.rewind` "weights", the pruned network then goes back to early weights: those of
        the epoch `rewind_epoch` of the dense stage, or the initial ones.
        """
        prune = self.config.prune
        early_weights = None
        if self.is_rewound:
            early_weights = (
                {name: tensor.clone() for name, tensor in self.module.state_dict().items()}
                if self.config.rewind_epoch is None
                else parent["rewind"]
            )
        self.take_shapes_and_masks(parent["model"], parent["masks"])
        self.module.load_state_dict(parent["model"])
        if prune is None or prune.sparsity == 0.0:
            return
        self.masks = self.pruner.prune(self.module, prune.sparsity, self.masks)
        if early_weights is not None:
            self.module.load_state_dict(early_weights)
        if self.masks is not None:
            pruning.apply_masks(self.module, self.masks)
        if prune.reestimate_batch_norm:
            self.reestimate_batch_norm(self.module)

    @property
    def is_rewound(self) -> bool:
        """Whether the stage starts from early weights instead of its parent's final ones."""
        prune = self.config.prune
        return prune is not None and prune.sparsity > 0.0 and prune.rewind == "weights"

    def take_shapes_and_masks(
        self, weights: Mapping[str, torch.Tensor], packed_masks: dict[str, Any] | None
    ) -> None:
        """Give the model the shapes of `weights`, whose channels may be pruned, and the masks."""
        if self.config.prune is not None:
            METHODS.get(self.config.prune.method).fit(self.module, weights)
        self.masks = None if packed_masks is None else pruning.unpack(packed_masks, self.module)

    def packed_masks(self) -> dict[str, Any] | None:
        """Return the masks as a checkpoint holds them."""
        return None if self.masks is None else pruning.pack(self.masks)

    def add_surplus(self) -> None:
        """Put the training graph around the model, if the config has a surplus."""
        if self.config.surplus is None:
            return
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(rng.derive(self.config.seed, "surplus"))
            self.module = make_graph(
                self.config.surplus,
                self.module,
                lambda times: self._build(times).to(self.world.device),
            )
        self.surplus = cast(Graph, self.module)

    def prune_gradually(self, step: int, total_steps: int) -> pruning.Masks | None:
        """Return new masks if gradual pruning is due after `step`, else None."""
        masks = self.pruner.prune_gradually(self.module, step, total_steps, self.masks)
        if masks is not None:
            self.masks = masks
            self._forward_macs.clear()
        return masks

    def forward_macs(self, side: int) -> int:
        """Return the multiply-adds of a forward pass of one image of `side` pixels at this step."""
        key = ("" if self.surplus is None else self.surplus.active(), side)
        if key not in self._forward_macs:  # counting takes a tenth of a second
            if self.surplus is None:
                self._forward_macs[key] = count(self.module, side, self.masks).macs_nonzero
            else:
                self._forward_macs[key] = self.surplus.macs(side)
        return self._forward_macs[key]

    def deployed(self) -> nn.Module:
        """Return the network of the result, without additional parameters.

        With surplus it is made at the first call, from the weights of that moment: call it after
        the last training step only.
        """
        if self.surplus is None:
            return self.module
        if self._deployed is None:
            self.world.share_buffers(self.module)
            self._deployed = self.surplus.deployed()
            if self.surplus.reestimate:
                self.reestimate_batch_norm(self._deployed)
        return self._deployed


def finished_module(
    config: StageConfig, weights: Mapping[str, torch.Tensor], num_classes: int, resolution: int
) -> nn.Module:
    """Return the deployed network of a finished stage with its final weights, on the CPU."""
    module = registry.build(config.model, num_classes, seed=config.seed, resolution=resolution)
    if config.prune is not None:
        METHODS.get(config.prune.method).fit(module, weights)  # channels may be gone
    module.load_state_dict(weights)
    return module
