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
import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


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


def _observed(model: nn.Module, resolution: int, in_channels: int) -> tuple[dict[str, int], int]:
    """How often each weight of a counted layer is applied to one image, and all multiply-adds.

    Seen in a forward pass of a copy on the CPU: torch's meta device would do without the
    arithmetic, but takes 4.5 s to start. Gradients stay on: without them torch's own attention
    layer takes a fast path that its counter does not see.
    """
    shadow = copy.deepcopy(model).cpu().eval()
    positions: dict[str, int] = {}

    def record(name: str, module: nn.Module, output: torch.Tensor) -> None:
        if isinstance(module, nn.Linear):
            applied = math.prod(output.shape[:-1])
        else:
            applied = math.prod(output.shape[2:])
        weight = f"{name}.weight"
        positions[weight] = positions.get(weight, 0) + applied

    for name, module in shadow.named_modules():
        if isinstance(module, COUNTED):
            module.register_forward_hook(
                lambda module, _, output, name=name: record(name, module, output)
            )
    with torch.enable_grad(), FlopCounterMode(display=False) as flops:
        shadow(torch.zeros(1, in_channels, resolution, resolution))
    return positions, flops.get_total_flops() // 2


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
