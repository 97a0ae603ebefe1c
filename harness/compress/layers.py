"""What a stage prunes, by the layers of its model: said by a launch before anything is queued."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from harness.compress import masks, methods
from harness.compress.methods import channel
from harness.compress.surplus import make_graph
from harness.data.catalog import CATALOG
from harness.errors import UserError
from harness.models import registry
from harness.schema import ModelConfig, PruneConfig, StageConfig


def to_prune(
    prune: PruneConfig, config: ModelConfig, dense: nn.Module, resolution: int
) -> list[str]:
    """Names of the weights of `dense` that a stage prunes from. Raises UserError."""
    # a removed output of the classifier would be a class
    more = ("classifier",) if prune.method == "channel" else ()
    named = masks.prunable(dense, (*prune.protect, *more), registry.roles(config))
    return methods.suited(prune.method, dense, named, resolution)


def misfits(stages: Iterable[StageConfig]) -> list[str]:
    """Sentences about models whose layers do not suit how they are pruned or surrounded.

    Each distinct combination is built once, without weights where that is enough.
    """
    found: dict[str, None] = {}
    seen = set()
    for stage in stages:
        info = CATALOG[stage.dataset.name]
        resolution = stage.dataset.resolution or info.resolution
        key = (stage.model, info.num_classes, resolution, stage.prune, stage.surplus)
        if key in seen:
            continue
        seen.add(key)
        try:
            _try(stage, info.num_classes, resolution)
        except UserError as error:
            width = f"{stage.model.family} of width {stage.model.width:g}"
            found[f"{str(error).rstrip('.')} ({width})"] = None
    return list(found)


def _try(stage: StageConfig, classes: int, resolution: int) -> None:
    prune = stage.prune
    narrows = prune is not None and prune.method == "channel"

    def build(times: float) -> nn.Module:
        width = round(stage.model.width * times, 9)
        model = stage.model.model_copy(update={"width": width})
        with torch.device("cpu" if narrows else "meta"):
            return registry.build(model, classes, seed=stage.seed, resolution=resolution)

    dense = build(1.0)
    if prune is not None:
        names = to_prune(prune, stage.model, dense, resolution)
        if narrows:
            widths = channel.widths(build(1 - prune.sparsity))
            asked = methods.Request(prune.sparsity, names, widths=widths, resolution=resolution)
            methods.compress(prune.method, dense, asked)
    if stage.surplus is not None:
        make_graph(stage.surplus, dense, build)
