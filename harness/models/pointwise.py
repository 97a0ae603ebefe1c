"""A workaround for a fault of torch 2.15: its CPU convolutions write beyond their memory.

The weight gradient of a 1x1 convolution with a stride corrupts the heap if the layer has few input
channels (seen with up to 8), its images have 56 or more pixels a side, and the memory format is
channels_last. Such a training crashes sooner or later, or continues with wrong numbers. On a CPU,
such a convolution is therefore computed in two steps: take every stride-th pixel, then apply a 1x1
convolution without a stride. The names of modules and parameters do not change.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class StridedPointwise(nn.Conv2d):
    """A 1x1 convolution with a stride and without padding."""

    def forward(self, input: Tensor) -> Tensor:
        """Return what `nn.Conv2d` returns, for images [N, C, H, W]."""
        if input.device.type != "cpu":
            return super().forward(input)
        rows, columns = self.stride
        return functional.conv2d(
            input[:, :, ::rows, ::columns], self.weight, self.bias, groups=self.groups
        )


def replace_strided_pointwise(module: nn.Module) -> nn.Module:
    """Return `module` with a `StridedPointwise` in place of each strided 1x1 convolution.

    The new layers have the parameters of the old ones, and creating them draws no random numbers.
    """
    if _is_affected(module):
        assert isinstance(module, nn.Conv2d)
        with torch.device("meta"):
            rows, columns = module.stride
            channels = module.in_channels, module.out_channels
            layer = StridedPointwise(*channels, 1, (rows, columns), groups=module.groups)
        layer.weight, layer.bias = module.weight, module.bias
        return layer
    for name, child in list(module.named_children()):
        replacement = replace_strided_pointwise(child)
        if replacement is not child:
            setattr(module, name, replacement)
    return module


def _is_affected(module: nn.Module) -> bool:
    return (
        type(module) is nn.Conv2d
        and module.kernel_size == (1, 1)
        and module.stride != (1, 1)
        and module.padding == (0, 0)
    )
