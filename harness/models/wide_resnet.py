"""Wide ResNet for CIFAR (Zagoruyko and Komodakis 2016), 6n+4 layers.

`width` is the paper's widening factor k, which multiplies 16-32-64 channels; the stem has 16
at any k. No dropout. WRN-28-10 has 36.5 million parameters and 5.24 billion multiply-adds
at 32x32.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from harness.models.cifar_resnet import BASE_CHANNELS, scaled

CLASSIFIER = "fc"
FIRST_CONV = "conv1"


def _conv(inputs: int, outputs: int, kernel: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)


class Block(nn.Module):
    """Norm, ReLU, 3x3 convolution, twice; a projection takes the activated input."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = _conv(inputs, outputs, 3, stride)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = _conv(outputs, outputs, 3, 1)
        changes = stride != 1 or inputs != outputs
        self.shortcut = _conv(inputs, outputs, 1, stride) if changes else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, inputs, H, W] -> [N, outputs, H / stride, W / stride], rounded up."""
        active = F.relu(self.bn1(x))
        out = self.conv2(F.relu(self.bn2(self.conv1(active))))
        return out + (x if self.shortcut is None else self.shortcut(active))


class WideResNet(nn.Module):
    """Images [N, in_channels, H, W] -> logits [N, num_classes]; any H and W from 1 up."""

    def __init__(
        self, blocks: int, channels: tuple[int, ...], num_classes: int, in_channels: int
    ) -> None:
        super().__init__()
        inputs = BASE_CHANNELS[0]
        self.conv1 = _conv(in_channels, inputs, 3, 1)
        layers: list[nn.Module] = []
        for stage, outputs in enumerate(channels):
            for block in range(blocks):
                layers.append(Block(inputs, outputs, stride=2 if stage and not block else 1))
                inputs = outputs
        self.blocks = nn.Sequential(*layers)
        self.bn = nn.BatchNorm2d(inputs)
        self.fc = nn.Linear(inputs, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)  # He et al. 2015, fan in
        nn.init.zeros_(self.fc.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """See the class."""
        out = F.relu(self.bn(self.blocks(self.conv1(x))))
        return self.fc(out.mean((2, 3)))


def build(depth: int, width: float, num_classes: int, in_channels: int) -> nn.Module:
    """WRN-`depth`-`width`, initialised from torch's default generator."""
    channels = tuple(scaled(base, width) for base in BASE_CHANNELS)
    return WideResNet((depth - 4) // 6, channels, num_classes, in_channels)
