"""Check and select what a stage prunes, from the layers of its model.

A launch runs these checks before it queues anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import nn

from harness.compress import masks
from harness.compress.methods import METHODS, Request
from harness.compress.surplus import Build, make_graph
from harness.data.catalog import info_of, training_sides
from harness.errors import UserError
from harness.models import registry
from harness.models.conversions import synchronise_batch_norm
from harness.models.counts import weights_applied_as_stored
from harness.models.registry import TIMM
from harness.models.trial_forward import check_forward
from harness.schema import ModelConfig, PruneConfig, StageConfig


def to_prune(
    prune: PruneConfig, config: ModelConfig, dense: nn.Module, resolution: int
) -> list[str]:
    """Return the names of the weights of `dense` that a stage may prune.

    Raises:
        UserError: there are no such weights. Or the network does not apply some of them as they are
            stored, so a weight that pruning sets to zero would not be zero in the network.
    """
    method = METHODS.get(prune.method)
    protect = (*prune.protect, *method.protects)
    names = masks.prunable(dense, protect, registry.roles(config))
    names = method.suited(dense, names, resolution)
    applied = weights_applied_as_stored(dense, resolution)
    if computed := [name for name in names if name not in applied]:
        raise UserError(
            f"compress.sparsity: the network does not use {len(computed)} of its weights, such as "
            f"{computed[0]}, as they are stored: layers of that kind (with standardised weights, "
            "for example) compute others from them, so zeros would not last. Set it to 0, choose "
            "another family, or name these weights in compress.protect."
        )
    return names


def make_request(
    prune: PruneConfig,
    names: Sequence[str],
    seed: int,
    resolution: int,
    build: Build,
    sparsity: float,
    previous: masks.Masks | None = None,
) -> Request:
    """Return the request to prune the weights `names` of a stage's model to `sparsity`.

    `previous` are the masks of the level before, whose weights stay pruned.
    """
    return Request(
        sparsity=sparsity,
        names=names,
        previous=previous,
        scope=prune.scope,
        seed=seed,
        resolution=resolution,
        build=build,
        options=prune.options.parse(METHODS.get(prune.method).options_model),
    )


def none_left(sparsity: float, weights: int) -> UserError:
    """Return the error of a stage whose sparsity rounds to all of its prunable `weights`."""
    return UserError(
        f"compress.sparsity: {sparsity:g} leaves none of the {weights:,} prunable weights of this "
        "model; lower it."
    )


def misfits(stages: Iterable[tuple[StageConfig, int]]) -> list[str]:
    """Return a sentence for each model that cannot be trained or pruned as its stages require.

    Each stage comes with the number of images in its smallest micro-batch. Equal combinations of
    model, data, pruning and surplus are checked once. Models are built on torch's meta device,
    without weights, unless the method has to see them.
    """
    sentences: dict[str, None] = {}
    checked = set()
    for stage, images in stages:
        sides = training_sides(stage.dataset)
        data, sync_bn = stage.dataset.name, stage.recipe.sync_bn
        key = (stage.model, data, sides, images, stage.prune, stage.surplus, sync_bn)
        if key in checked:
            continue
        checked.add(key)
        try:
            _try(stage, sides, images)
        except UserError as error:
            model = f"{stage.model.family} of width {stage.model.width:g}"
            sentences[f"{str(error).rstrip('.')} ({model})"] = None
    return list(sentences)


def _try(stage: StageConfig, sides: tuple[int, ...], images: int) -> None:
    """Build, prune and surround a stage's model as its job will, without training it.

    `sides` are the sizes of its images in pixels, `images` the number in its smallest micro-batch.
    Raises UserError if one of these steps is not possible.
    """
    prune, resolution = stage.prune, sides[-1]
    classes = info_of(stage.dataset).num_classes
    if stage.model.family.startswith(TIMM) or images == 1:
        check_forward(stage.model, classes, sides, images)
    method = None if prune is None else METHODS.get(prune.method)
    needs_weights = method is not None and method.tried_when_planned

    def build(times: float) -> nn.Module:
        with torch.device("cpu" if needs_weights else "meta"):
            return registry.build(
                stage.model, classes, seed=stage.seed, resolution=resolution, times=times
            )

    dense = build(1.0)
    if prune is not None and method is not None:
        names = to_prune(prune, stage.model, dense, resolution)
        weights = sum(dense.get_parameter(name).numel() for name in names)
        if method.tried_when_planned:
            request = make_request(prune, names, stage.seed, resolution, build, prune.sparsity)
            method.compress(dense, request)
        elif round(prune.sparsity * weights) == weights:
            raise none_left(prune.sparsity, weights)
    if stage.surplus is not None:
        dense = make_graph(stage.surplus, dense, build)
    if stage.recipe.sync_bn:
        synchronise_batch_norm(dense)
