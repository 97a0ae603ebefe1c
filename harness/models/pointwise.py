"""A way around a fault of torch 2.15's CPU convolutions that writes beyond its memory.

The weight gradient of a 1x1 convolution with a stride, few input channels (8 at most were seen) and
sides from 56 pixels, in channels_last memory, corrupts the heap: such a training crashes sooner or
later, or goes on with wrong numbers. On a CPU the same is done in two steps that are sound: take
every stride-th pixel, then a 1x1 convolution. Names, parameters and the deployed graph stay.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


class StridedPointwise(nn.Conv2d):
    """A 1x1 convolution with a stride and no padding."""

    def forward(self, input: Tensor) -> Tensor:
        """As `nn.Conv2d`, images [N, C, H, W]."""
        if input.device.type != "cpu":
            return super().forward(input)
        rows, columns = self.stride
        return functional.conv2d(
            input[:, :, ::rows, ::columns], self.weight, self.bias, groups=self.groups
        )


def mend(module: nn.Module) -> nn.Module:
    """The module itself, its strided 1x1 convolutions replaced in kind."""
    for layer in module.modules():
        if (
            type(layer) is nn.Conv2d
            and layer.kernel_size == (1, 1)
            and layer.stride != (1, 1)
            and layer.padding == (0, 0)
        ):
            layer.__class__ = StridedPointwise
    return module
