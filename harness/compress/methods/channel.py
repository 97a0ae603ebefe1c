"""Channels of the least weight go, physically: the layers become narrower, and so the counts.

Torch-Pruning's dependency graph (Fang et al. 2023, DepGraph) says which slices of which layers
belong to one channel. How many stay is what each layer of the plain model has at the width that is
left: pruning a half of width 1 leaves the shapes of width 1/2, whatever the family's rounding.
Where layers share channels that the plain model does not (a shortcut that is the identity at one
width only) there is no such model, and that is said. Outputs of the classifier stay.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from harness.compress.methods import Request
from harness.errors import UserError

LAYERS = (nn.Conv2d, nn.Linear)


def widths(model: nn.Module) -> dict[str, int]:
    """Output channels of every layer by name."""
    return {n: m.weight.shape[0] for n, m in model.named_modules() if isinstance(m, LAYERS)}


def suited(model: nn.Module, names: Sequence[str], resolution: int) -> list[str]:
    """The layers that can become narrower: none that shares channels with one not in `names`."""
    found: set[str] = set()
    with _on_cpu(model):
        for group in _groups(model, resolution):
            if all(f"{name}.weight" in names for name in group.layers):
                found.update(group.layers)
    return [name for name in names if name.removesuffix(".weight") in found]


def compress(model: nn.Module, request: Request) -> None:
    """Remove channels in place. Layers that are not in `request.names` keep their outputs.

    Raises UserError where that cannot end in the plain model's shapes.
    """
    tp = _library()
    assert request.widths is not None
    importance = tp.importance.GroupMagnitudeImportance(p=2, normalizer=None)
    with _on_cpu(model):
        for group in _groups(model, request.resolution):
            if any(f"{name}.weight" not in request.names for name in group.layers):
                continue
            target = _target(group.layers, request)
            if target < group.channels:
                order = importance(group.of(range(group.channels))).argsort(stable=True)
                gone = order[: group.channels - target].sort().values.tolist()
                group.of(gone).prune()


def _target(layers: Sequence[str], request: Request) -> int:
    """Outputs that layers with shared channels have in the plain model. Raises UserError."""
    assert request.widths is not None
    plain = {name: request.widths.get(name, 0) for name in layers}
    if len({*plain.values()}) > 1 or 0 in plain.values():
        told = ", ".join(f"{name} {width or 'absent'}" for name, width in plain.items())
        raise UserError(
            f"compress.sparsity: channels cannot be removed to {request.sparsity:g} here: layers "
            f"that share them differ in the plain model of that width ({told}); choose another "
            "sparsity or width, or protect one of these layers."
        )
    return next(iter(plain.values()))


@dataclass(frozen=True)
class _Group:
    """Layers with one set of output channels; `of(channels)` is the library's group of those."""

    layers: tuple[str, ...]
    channels: int
    of: Callable[[Iterable[int]], Any]


@contextlib.contextmanager
def _on_cpu(model: nn.Module) -> Iterator[None]:
    """In eval mode, and on the CPU so that ranks and devices agree on near-equal norms."""
    device, mode = next(model.parameters()).device, model.training
    model.eval().cpu()
    try:
        yield
    finally:
        model.to(device).train(mode)


def _groups(model: nn.Module, resolution: int) -> Iterator[_Group]:
    """In the model's order; the model may be pruned meanwhile."""
    tp = _library()
    example = torch.zeros(1, 3, resolution, resolution)
    graph = tp.DependencyGraph().build_dependency(model, example)
    names = {module: name for name, module in model.named_modules()}
    done: set[str] = set()
    for module in [m for m in names if isinstance(m, LAYERS)]:
        if names[module] in done or _depthwise(module):
            continue
        channels = module.weight.shape[0]
        prune = (
            tp.prune_conv_out_channels
            if isinstance(module, nn.Conv2d)
            else tp.prune_linear_out_channels
        )

        def of(idxs: Iterable[int], module: nn.Module = module, prune: Any = prune) -> Any:
            return graph.get_pruning_group(module, prune, idxs=list(idxs))

        layers = [
            names[item.dep.target.module]
            for item in of(range(channels))
            if graph.is_out_channel_pruning_fn(item.dep.handler)
            and isinstance(item.dep.target.module, LAYERS)
        ]
        done.update(layers)
        yield _Group(tuple(dict.fromkeys(layers)), channels, of)


def _library() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the library's imports, timm among them
        import torch_pruning
    return torch_pruning


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
