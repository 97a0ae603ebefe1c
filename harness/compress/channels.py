"""Removal of whole channels from a model, so that its layers become narrower.

Torch-Pruning's dependency graph (Fang et al. 2023, DepGraph) tells which slices of which layers
belong to one channel. Each layer keeps as many channels as it has in the plain model, the family's
model at the smaller width. So pruning half of the channels at width 1 leaves the shapes of width
1/2, also where the family rounds numbers of channels.

Layers that share channels must keep equal numbers of them. A trial is refused if such layers have
different widths in the plain model. This happens if a shortcut is the identity at only one of the
two widths.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from harness.errors import UserError
from harness.models.counts import LAYERS


def output_channels(model: nn.Module) -> dict[str, int]:
    """Return the number of output channels of each convolution and linear layer, by its name."""
    return {
        name: module.weight.shape[0]
        for name, module in model.named_modules()
        if isinstance(module, LAYERS)
    }


def removable(model: nn.Module, names: Sequence[str], resolution: int) -> list[str]:
    """Return the weights among `names` whose layers can lose output channels.

    A layer that shares its channels with another one can lose them only if the weights of both are
    in `names`.
    """
    layers: set[str] = set()
    with _on_cpu(model):
        for group in _groups(model, resolution):
            if group.is_within(names):
                layers.update(group.layers)
    return [name for name in names if name.removesuffix(".weight") in layers]


def remove_channels(
    model: nn.Module,
    names: Sequence[str],
    plain: Mapping[str, int],
    sparsity: float,
    resolution: int,
) -> None:
    """Remove the channels of the smallest norm, in place, until the layers are as wide as `plain`.

    `plain` has the output channels of each layer of the plain model. Layers whose weights are not
    in `names` keep their output channels. `sparsity` is for the error message only.

    Raises:
        UserError: layers that share channels differ in `plain`.
    """
    importance = _torch_pruning().importance.GroupMagnitudeImportance(p=2, normalizer=None)
    with _on_cpu(model):
        for group in _groups(model, resolution):
            if not group.is_within(names):
                continue
            target = _target(group.layers, plain, sparsity)
            if target < group.channels:
                order = importance(group.select(range(group.channels))).argsort(stable=True)
                removed = order[: group.channels - target].sort().values.tolist()
                group.select(removed).prune()


def _target(layers: Sequence[str], plain: Mapping[str, int], sparsity: float) -> int:
    """Return how many channels the plain model has in `layers`, which share their channels."""
    widths = {name: plain.get(name, 0) for name in layers}
    if len({*widths.values()}) > 1 or 0 in widths.values():
        listed = ", ".join(f"{name} {width or 'absent'}" for name, width in widths.items())
        raise UserError(
            f"compress.sparsity: channels cannot be removed to {sparsity:g} here: layers "
            f"that share them differ in the plain model of that width ({listed}); choose another "
            "sparsity or width, or protect one of these layers."
        )
    return next(iter(widths.values()))


@dataclass(frozen=True)
class _Group:
    """Layers that share their output channels.

    `select(channels)` returns the object of Torch-Pruning that can remove these channels.
    """

    layers: tuple[str, ...]
    channels: int
    select: Callable[[Iterable[int]], Any]

    def is_within(self, names: Sequence[str]) -> bool:
        """Return whether the weights of all layers of the group are in `names`."""
        return all(f"{layer}.weight" in names for layer in self.layers)


@contextlib.contextmanager
def _on_cpu(model: nn.Module) -> Iterator[None]:
    """Keep the model in eval mode on the CPU during the context.

    On the CPU all ranks compute norms that are equal to the bit, so they remove the same channels.
    """
    device, mode = next(model.parameters()).device, model.training
    model.eval().cpu()
    try:
        yield
    finally:
        model.to(device).train(mode)


def _groups(model: nn.Module, resolution: int) -> Iterator[_Group]:
    """Yield the groups in the model's order.

    The caller may remove channels of a group before it takes the next one.
    """
    tp = _torch_pruning()
    example = torch.zeros(1, 3, resolution, resolution)
    graph = tp.DependencyGraph().build_dependency(model, example)
    names = {module: name for name, module in model.named_modules()}
    done: set[str] = set()
    for module in [m for m in names if isinstance(m, LAYERS)]:
        if names[module] in done or _is_depthwise(module):
            continue
        channels = module.weight.shape[0]
        prune = (
            tp.prune_conv_out_channels
            if isinstance(module, nn.Conv2d)
            else tp.prune_linear_out_channels
        )

        def select(idxs: Iterable[int], module: nn.Module = module, prune: Any = prune) -> Any:
            return graph.get_pruning_group(module, prune, idxs=list(idxs))

        layers = [
            names[item.dep.target.module]
            for item in select(range(channels))
            if graph.is_out_channel_pruning_fn(item.dep.handler)
            and isinstance(item.dep.target.module, LAYERS)
        ]
        done.update(layers)
        yield _Group(tuple(dict.fromkeys(layers)), channels, select)


def _torch_pruning() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # modules that the library imports warn, such as timm's
        import torch_pruning
    return torch_pruning


def _is_depthwise(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d) and module.groups == module.out_channels > 1


def fit_shapes(model: nn.Module, state: Mapping[str, torch.Tensor]) -> None:
    """Give the layers of a freshly built model the shapes of the weights `state`, in place.

    The new weights are zeros; the caller loads `state` afterwards.
    """
    for name, module in model.named_modules():
        weight = state.get(f"{name}.weight")
        if weight is None or not hasattr(module, "weight") or weight.shape == module.weight.shape:
            continue
        if isinstance(module, nn.Conv2d):
            if _is_depthwise(module):
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
