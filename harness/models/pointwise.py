"""A workaround for a fault of torch 2.15: its CPU convolutions write beyond their memory.

The weight gradient of a 1x1 convolution with a stride corrupts the heap if it has few input
channels (up to 8 were seen), images from 56 pixels a side, and channels_last memory. Such a
training crashes sooner or later, or continues with wrong numbers. On a CPU, two correct steps
replace it: take every stride-th pixel, then a 1x1 convolution without a stride. Names, parameters
and the deployed graph do not change.
"""

from __future__ import annotations

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


def mend(module: nn.Module) -> nn.Module:
    """Turn all strided 1x1 convolutions of `module` into `StridedPointwise`, and return it.

    Only the class of a layer changes. A new layer would draw new weights.
    """
    for layer in module.modules():
        if (
            type(layer) is nn.Conv2d
            and layer.kernel_size == (1, 1)
            and layer.stride != (1, 1)
            and layer.padding == (0, 0)
        ):
            layer.__class__ = StridedPointwise
    return module
