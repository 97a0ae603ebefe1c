"""Count the parameters and multiply-adds of a dense or pruned model. Rows contain these counts.

Multiply-adds are those of one image. A linear layer or a convolution, also a grouped or depthwise
one, has the number of its weights times the number of positions at which they are applied. Matrix
products between activations, as in attention, count in full. Norms, activations, pooling, biases
and other element-wise operations do not count.

A pruned weight reduces the count by exactly its own multiply-adds, so the counts of sparse models
are exact integers. Pruning does not reduce products between activations, which have no weights. The
numbers are theoretical: a masked model runs on dense kernels and is not faster.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


@dataclass(frozen=True)
class Counts:
    """Numbers of parameters, and of multiply-adds for one image.

    `params_prunable` counts the weights that the masks cover; without masks, the weights of all
    convolutions and linear layers that an image passes. `params_nonzero` counts all parameters
    except the pruned ones.
    """

    params_total: int
    params_nonzero: int
    params_prunable: int
    macs_dense: int
    macs_nonzero: int


LAYERS = (nn.Conv2d, nn.Linear)
"""The layers whose weights are counted and can be pruned, with their subclasses."""
WEIGHT_ARGUMENTS = {
    F.linear: (1, "weight"),
    F.conv2d: (1, "weight"),
    F.multi_head_attention_forward: (11, "out_proj_weight"),
}
"""Functions that apply a layer's weight, with the position and the name of that argument."""


class _PositionCounter(TorchFunctionMode):
    """Counts at how many positions of one image each weight is applied: `positions`, by name.

    Most weights are counted in the call of the function that applies them. This includes weights
    that a model passes to the function without calling the layer (BEiT's attention). Layers that
    compute their weight in each call, such as convolutions with standardised weights, pass another
    tensor to the function: a forward hook counts them.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.positions: dict[str, int] = {}
        self.seen_in_call: set[str] = set()
        self.name_of_weight: dict[int, str] = {}
        self.output_channels: dict[str, int] = {}
        for layer, module in model.named_modules():
            if isinstance(module, LAYERS):
                name = f"{layer}.weight"
                if isinstance(module.weight, nn.Parameter):
                    # a weight that several layers share has one name, that of the first layer
                    name = self.name_of_weight.setdefault(id(module.weight), name)
                self.output_channels[name] = module.weight.shape[0]
                module.register_forward_hook(functools.partial(self._hook, name))

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if func in WEIGHT_ARGUMENTS:
            position, keyword = WEIGHT_ARGUMENTS[func]
            weight = args[position] if len(args) > position else kwargs[keyword]
            if (name := self.name_of_weight.get(id(weight))) is not None:
                self.seen_in_call.add(name)
                self._add(name, out[0] if isinstance(out, tuple) else out)
        return out

    def _hook(self, name: str, module: nn.Module, _: Any, out: torch.Tensor) -> None:
        if name not in self.seen_in_call:
            self._add(name, out)

    def _add(self, name: str, out: torch.Tensor) -> None:
        positions = out.numel() // self.output_channels[name]
        self.positions[name] = self.positions.get(name, 0) + positions


class _Flops(TorchDispatchMode):
    """Adds up the floating-point operations of each operator by torch's own formulas.

    torch's `FlopCounterMode` does this too, but also counts for each module and takes twice as
    long.
    """

    total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        formula = flop_registry.get(getattr(func, "_overloadpacket", func))
        if formula is not None:
            self.total += formula(*args, **kwargs, out_val=out)
        return out


def _count_in_forward_pass(
    model: nn.Module, resolution: int, in_channels: int
) -> tuple[_PositionCounter, int]:
    """Return the positions of all weights in one image, and the number of all multiply-adds.

    Both are counted in a forward pass of a copy of the model. The copy is on the CPU unless the
    model is on torch's meta device, because that device takes 4.5 s to start. Gradients stay on and
    attention uses plain products, because torch has no formula for two faster ways: the one that
    its attention layer takes without gradients, and, in torch 2.11, the fused attention of a CPU.
    """
    device = "meta" if next(model.parameters()).is_meta else "cpu"
    model_copy = copy.deepcopy(model).to(device).eval()
    counter = _PositionCounter(model_copy)
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH), _Flops() as flops, counter:
        model_copy(torch.zeros(1, in_channels, resolution, resolution, device=device))
    return counter, flops.total // 2


def weights_applied_as_stored(model: nn.Module, resolution: int) -> set[str]:
    """Return the names of the weights that a convolution or a linear product takes unchanged.

    A layer with standardised weights computes the weights that it applies from its parameter, in
    each forward pass. So a zero in the parameter is not a zero in the network.
    """
    counter, _ = _count_in_forward_pass(model, resolution, in_channels=3)
    return counter.seen_in_call


def count(
    model: nn.Module,
    resolution: int,
    masks: Mapping[str, torch.Tensor] | None = None,
    in_channels: int = 3,
) -> Counts:
    """Return the counts of a model for images of `resolution` x `resolution` pixels.

    `masks`, by the name of the weight, are False where a weight is pruned. They lower
    `params_nonzero` and `macs_nonzero` only.
    """
    pruned = {
        name: mask.numel() - int(mask.count_nonzero()) for name, mask in (masks or {}).items()
    }
    counter, macs = _count_in_forward_pass(model, resolution, in_channels)
    pruned_macs = sum(pruned.get(name, 0) * n for name, n in counter.positions.items())
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    total = sum(sizes.values())
    prunable = counter.positions if masks is None else masks
    return Counts(
        params_total=total,
        params_nonzero=total - sum(pruned.values()),
        params_prunable=sum(sizes.get(name, 0) for name in prunable),
        macs_dense=macs,
        macs_nonzero=macs - pruned_macs,
    )
