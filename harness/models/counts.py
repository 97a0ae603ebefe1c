"""Parameters and multiply-adds, dense and as pruned: the sizes in the rows.

Multiply-adds are those of one image: of each convolution (also grouped and depthwise) and linear
layer the number of weights times the number of positions they are applied at, and of matrix
products between activations, as in attention, all of them. Norms, activations, pooling, biases and
other element-wise work are not counted. A pruned weight takes its own share away, so sparse counts
are exact integers; products between activations have no weight and stay. The numbers are
theoretical: masked dense kernels are not faster.
"""

from __future__ import annotations

import copy
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
    """Numbers of parameters, and multiply-adds for one image.

    `params_prunable` are the weights that the masks cover; without masks, those of all
    convolutions and linear layers on the image's way. `params_nonzero` are all parameters but the
    pruned ones.
    """

    params_total: int
    params_nonzero: int
    params_prunable: int
    macs_dense: int
    macs_nonzero: int


COUNTED = (nn.Conv2d, nn.Linear)


class _Watch(TorchFunctionMode):
    """Where weights are applied: `positions` by the weight's name, for one image.

    Most are seen in the call itself, also where a model passes a layer's weight to the function
    (BEiT's attention). The rest are layers that make their weight anew in each call, such as
    convolutions with standardised weights: these are seen by a hook.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.positions: dict[str, int] = {}
        self.direct: set[str] = set()
        self.names: dict[int, str] = {}
        self.outputs: dict[str, int] = {}  # channels of the output
        for name, module in model.named_modules():
            if isinstance(module, COUNTED):
                self.names.setdefault(id(module.weight), f"{name}.weight")
                self.outputs[f"{name}.weight"] = module.weight.shape[0]
                module.register_forward_hook(self._hook)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func in (F.linear, F.conv2d):
            weight = args[1] if len(args) > 1 else (kwargs or {})["weight"]
            if (name := self.names.get(id(weight))) is not None:
                self.direct.add(name)
                self._add(name, out)
        return out

    def _hook(self, module: nn.Module, _: Any, out: torch.Tensor) -> None:
        name = self.names[id(module.weight)]
        if name not in self.direct:
            self._add(name, out)

    def _add(self, name: str, out: torch.Tensor) -> None:
        positions = out.numel() // self.outputs[name]
        self.positions[name] = self.positions.get(name, 0) + positions


class _Flops(TorchDispatchMode):
    """The sum of torch's own formulas.

    Its counter tells modules apart as well, which takes as long again as all else.
    """

    total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        formula = flop_registry.get(getattr(func, "_overloadpacket", func))
        if formula is not None:
            self.total += formula(*args, **kwargs, out_val=out)
        return out


def _observed(model: nn.Module, resolution: int, in_channels: int) -> tuple[dict[str, int], int]:
    """How often each weight of a counted layer is applied to one image, and all multiply-adds.

    Seen in a forward pass of a copy on the CPU: torch's meta device would do without the
    arithmetic, but takes 4.5 s to start. Gradients stay on, and attention is done by its plain
    products: torch's formulas know neither the fast path that its own attention layer takes
    without gradients nor, in torch 2.11, the fused attention of a CPU.
    """
    shadow = copy.deepcopy(model).cpu().eval()
    watch = _Watch(shadow)
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH), _Flops() as flops, watch:
        shadow(torch.zeros(1, in_channels, resolution, resolution))
    return watch.positions, flops.total // 2


def count(
    model: nn.Module,
    resolution: int,
    masks: Mapping[str, torch.Tensor] | None = None,
    in_channels: int = 3,
) -> Counts:
    """Count a model for square images of `resolution` pixels, less what `masks` have pruned."""
    pruned = {
        name: mask.numel() - int(mask.count_nonzero()) for name, mask in (masks or {}).items()
    }
    positions, macs = _observed(model, resolution, in_channels)
    size = {name: parameter.numel() for name, parameter in model.named_parameters()}
    total = sum(size.values())
    return Counts(
        params_total=total,
        params_nonzero=total - sum(pruned.values()),
        params_prunable=sum(size[name] for name in (positions if masks is None else masks)),
        macs_dense=macs,
        macs_nonzero=macs - sum(pruned.get(name, 0) * at for name, at in positions.items()),
    )
