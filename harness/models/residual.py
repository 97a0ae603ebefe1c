"""The networks of `cifar_resnet` and `wide_resnet`: residual networks for small images."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


def _conv(inputs: int, outputs: int, kernel: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)


def _initialise(model: nn.Module, classifier: nn.Linear) -> None:
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight)  # He et al. 2015, fan in
    nn.init.zeros_(classifier.bias)


class Block(nn.Module):
    """Two 3x3 convolutions around a shortcut (He et al. 2016)."""

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


class PreActivationBlock(nn.Module):
    """Norm, ReLU and 3x3 convolution, two times, around a shortcut (Zagoruyko and Komodakis 2016).

    If the shape changes, the shortcut is a 1x1 convolution of the input after norm and ReLU.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = _conv(inputs, outputs, 3, stride)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = _conv(outputs, outputs, 3, 1)
        changes_shape = stride != 1 or inputs != outputs
        self.shortcut = _conv(inputs, outputs, 1, stride) if changes_shape else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, inputs, H, W] -> [N, outputs, H / stride, W / stride], rounded up."""
        active = F.relu(self.bn1(x))
        out = self.conv2(F.relu(self.bn2(self.conv1(active))))
        return out + (x if self.shortcut is None else self.shortcut(active))


def _stages(
    block: type[nn.Module], blocks: int, inputs: int, channels: tuple[int, ...]
) -> nn.Sequential:
    """Return the stages of a network, one for each of `channels`, with `blocks` blocks each.

    All stages except the first halve the height and width of the image.
    """
    layers: list[nn.Module] = []
    for stage, outputs in enumerate(channels):
        for i in range(blocks):
            layers.append(block(inputs, outputs, stride=2 if stage and i == 0 else 1))
            inputs = outputs
    return nn.Sequential(*layers)


class CifarResNet(nn.Module):
    """Images [N, in_channels, H, W] -> logits [N, num_classes]; any H and W from 1 up."""

    def __init__(
        self, blocks: int, channels: tuple[int, ...], num_classes: int, in_channels: int
    ) -> None:
        super().__init__()
        self.conv1 = _conv(in_channels, channels[0], 3, 1)
        self.bn1 = nn.BatchNorm2d(channels[0])
        self.blocks = _stages(Block, blocks, channels[0], channels)
        self.fc = nn.Linear(channels[-1], num_classes)
        _initialise(self, self.fc)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """See the class."""
        out = self.blocks(F.relu(self.bn1(self.conv1(x))))
        return self.fc(out.mean((2, 3)))


class WideResNet(nn.Module):
    """Images [N, in_channels, H, W] -> logits [N, num_classes]; any H and W from 1 up."""

    def __init__(
        self,
        blocks: int,
        stem: int,
        channels: tuple[int, ...],
        num_classes: int,
        in_channels: int,
    ) -> None:
        super().__init__()
        self.conv1 = _conv(in_channels, stem, 3, 1)
        self.blocks = _stages(PreActivationBlock, blocks, stem, channels)
        self.bn = nn.BatchNorm2d(channels[-1])
        self.fc = nn.Linear(channels[-1], num_classes)
        _initialise(self, self.fc)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """See the class."""
        out = F.relu(self.bn(self.blocks(self.conv1(x))))
        return self.fc(out.mean((2, 3)))
