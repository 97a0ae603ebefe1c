"""Channels of the least weight go, physically: the layers become narrower, and so the counts.

Torch-Pruning's dependency graph (Fang et al. 2023, DepGraph) says which slices of which layers
belong to one channel. Every layer keeps the same share, rounded as the families round widths, so
that pruning a half of width 1 leaves the shapes of width 1/2. Outputs of the classifier stay.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping

import torch
from torch import nn

from harness.compress.methods import Request

LAYERS = (nn.Conv2d, nn.Linear)


def widths(model: nn.Module) -> dict[str, int]:
    """Output channels of every layer by name: of the dense model, the measure of the shares."""
    return {n: m.weight.shape[0] for n, m in model.named_modules() if isinstance(m, LAYERS)}


def compress(model: nn.Module, request: Request) -> None:
    """Remove channels in place. Layers that are not in `request.names` keep their outputs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the library's imports
        import torch_pruning as tp

    assert request.widths is not None
    device = next(model.parameters()).device
    mode = model.training
    model.eval().cpu()  # so that ranks and devices agree on the order of near-equal norms
    example = torch.zeros(1, 3, request.resolution, request.resolution)
    graph = tp.DependencyGraph().build_dependency(model, example)
    names = {module: name for name, module in model.named_modules()}
    kept = [m for m, name in names.items() if isinstance(m, LAYERS) and _fixed(name, request)]
    importance = tp.importance.GroupMagnitudeImportance(p=2, normalizer=None)
    done: set[str] = set()
    for module in [m for m in names if isinstance(m, LAYERS)]:
        if names[module] in done or module in kept or _depthwise(module):
            continue
        channels = module.weight.shape[0]
        prune = (
            tp.prune_conv_out_channels
            if isinstance(module, nn.Conv2d)
            else (tp.prune_linear_out_channels)
        )
        group = graph.get_pruning_group(module, prune, idxs=list(range(channels)))
        outputs = [
            item.dep.target.module
            for item in group
            if graph.is_out_channel_pruning_fn(item.dep.handler)
            and isinstance(item.dep.target.module, LAYERS)
        ]
        done.update(names[m] for m in outputs)
        target = max(1, math.floor(request.widths[names[module]] * (1 - request.sparsity) + 0.5))
        if any(m in kept for m in outputs) or target >= channels:
            continue
        score = importance(group)
        gone = score.argsort(stable=True)[: channels - target].sort().values.tolist()
        graph.get_pruning_group(module, prune, idxs=gone).prune()
    model.to(device).train(mode)


def _fixed(name: str, request: Request) -> bool:
    return f"{name}.weight" not in request.names


def _depthwise(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d) and module.groups == module.out_channels > 1


def fit(model: nn.Module, state: Mapping[str, torch.Tensor]) -> None:
    """Give a freshly built model the shapes of `state`, in place; its weights are then loaded."""
    for name, module in model.named_modules():
        weight = state.get(f"{name}.weight")
        if weight is None or not hasattr(module, "weight") or weight.shape == module.weight.shape:
            continue
        if isinstance(module, nn.Conv2d):
            if _depthwise(module):
                module.groups = weight.shape[0]
            module.in_channels = weight.shape[1] * module.groups
            module.out_channels = weight.shape[0]
        elif isinstance(module, nn.Linear):
            module.out_features, module.in_features = weight.shape
        elif isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.num_features = weight.shape[0]
        for key, tensor in [*module.named_parameters(recurse=False)]:
            shape = state[f"{name}.{key}"].shape
            setattr(module, key, nn.Parameter(tensor.detach().new_zeros(shape)))
        for key, tensor in [*module.named_buffers(recurse=False)]:
            module.register_buffer(key, tensor.new_zeros(state[f"{name}.{key}"].shape))
