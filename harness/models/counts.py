"""Parameters and multiply-adds, dense and as pruned: the sizes in the rows.

Multiply-adds are those of convolutions and linear layers for one image: for each layer the number
of weights times the number of positions they are applied at. A pruned weight takes its own share
of them away, so sparse counts are exact integers. They are theoretical: masked dense kernels are
not faster.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class Counts:
    """Numbers of parameters, and multiply-adds for one image.

    `params_prunable` are the weights that the masks cover; without masks, those of all
    convolutions and linear layers. `params_nonzero` are all parameters but the pruned ones.
    """

    params_total: int
    params_nonzero: int
    params_prunable: int
    macs_dense: int
    macs_nonzero: int


COUNTED = (nn.Conv2d, nn.Linear)


def _positions(model: nn.Module, resolution: int, in_channels: int) -> dict[str, int]:
    """How often each weight of a counted layer is applied to one image, by the weight's name.

    Seen in a forward pass of a copy on the CPU: torch's meta device would do without the
    arithmetic, but takes 4.5 s to start.
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
    with torch.no_grad():
        shadow(torch.zeros(1, in_channels, resolution, resolution))
    return positions


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
    positions = _positions(model, resolution, in_channels)
    size = {name: parameter.numel() for name, parameter in model.named_parameters()}
    total = sum(size.values())
    return Counts(
        params_total=total,
        params_nonzero=total - sum(pruned.values()),
        params_prunable=sum(size[name] for name in (positions if masks is None else masks)),
        macs_dense=sum(size[name] * at for name, at in positions.items()),
        macs_nonzero=sum((size[name] - pruned.get(name, 0)) * at for name, at in positions.items()),
    )
