"""CIFAR's ResNet (He et al. 2016, section 4.2): 6n+2 layers, 16-32-64 channels times `width`.

Shortcuts are projections wherever the shape changes (option B), so ResNet-20 at width 1 has
272,474 parameters for 10 classes and 40.8 million multiply-adds at 32x32.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F

CLASSIFIER = "fc"
FIRST_CONV = "conv1"
BASE_CHANNELS = (16, 32, 64)


def scaled(channels: int, width: float) -> int:
    """`channels * width`, rounded to the nearest integer (halves up), at least 1."""
    return max(1, math.floor(channels * width + 0.5))


def _conv(inputs: int, outputs: int, kernel: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)


class Block(nn.Module):
    """Two 3x3 convolutions around a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _conv(inputs, outputs, 3, stride)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = _conv(outputs, outputs, 3, 1)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                _conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, inputs, H, W] -> [N, outputs, H / stride, W / stride], rounded up."""
        out = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(out)) + self.shortcut(x))


class CifarResNet(nn.Module):
    """Images [N, in_channels, H, W] -> logits [N, num_classes]; any H and W from 1 up."""

    def __init__(
        self, blocks: int, channels: tuple[int, ...], num_classes: int, in_channels: int
    ) -> None:
        super().__init__()
        self.conv1 = _conv(in_channels, channels[0], 3, 1)
        self.bn1 = nn.BatchNorm2d(channels[0])
        layers: list[nn.Module] = []
        inputs = channels[0]
        for stage, outputs in enumerate(channels):
            for block in range(blocks):
                layers.append(Block(inputs, outputs, stride=2 if stage and not block else 1))
                inputs = outputs
        self.blocks = nn.Sequential(*layers)
        self.fc = nn.Linear(inputs, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)  # He et al. 2015, fan in
        nn.init.zeros_(self.fc.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """See the class."""
        out = self.blocks(F.relu(self.bn1(self.conv1(x))))
        return self.fc(out.mean((2, 3)))


def build(depth: int, width: float, num_classes: int, in_channels: int) -> nn.Module:
    """ResNet-`depth`, initialised from torch's default generator."""
    channels = tuple(scaled(base, width) for base in BASE_CHANNELS)
    return CifarResNet((depth - 2) // 6, channels, num_classes, in_channels)
