"""The deployed form of a quantised network: packed integers and scales; and its size.

A deployed layer turns its integers into float, quantises its input, and applies the original
operator in float32. So it returns exactly what the training graph returns. A product of integers
would not: the sums differ in the last bits, and where such a difference moves an activation across
a rounding threshold, the next layer's input differs by a whole step.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn
from torch.func import functional_call
from torch.nn.utils import parametrize

from harness.compress.quantise_layers import QuantisedLayer, quantised_layers
from harness.compress.quantise_ranges import SMALLEST_SCALE, fake_quantise, weight_integers

FLOAT_BITS = 32


def pack(integers: torch.Tensor, bits: int) -> torch.Tensor:
    """Return signed integers of `bits` bits as one uint8 tensor, without gaps between them.

    Values are shifted to start from 0. Their lowest bits come first, and zeros fill the last byte.
    """
    low, _ = weight_integers(bits)
    values = integers.flatten().to(torch.int64) - low
    digits = (values[:, None] >> torch.arange(bits, device=values.device)) & 1
    stream = nn.functional.pad(digits.flatten(), (0, -values.numel() * bits % 8)).view(-1, 8)
    return (stream << torch.arange(8, device=values.device)).sum(1).to(torch.uint8)


def unpack(packed: torch.Tensor, bits: int, shape: torch.Size) -> torch.Tensor:
    """Return the integers that `pack` packed, int8 of `shape`.

    Raises:
        ValueError: the bytes do not fill the shape.
    """
    count = math.prod(shape)
    if packed.shape != (-(-count * bits // 8),):
        raise ValueError(f"{packed.numel()} bytes do not hold {count} integers of {bits} bits")
    low, _ = weight_integers(bits)
    wide = packed.to(torch.int64)
    stream = ((wide[:, None] >> torch.arange(8, device=wide.device)) & 1).flatten()
    digits = stream[: count * bits].view(count, bits)
    values = (digits << torch.arange(bits, device=wide.device)).sum(1) + low
    return values.to(torch.int8).view(shape)


class DeployedLayer(nn.Module):
    """A layer whose weight is stored as packed integers with a scale for each output channel."""

    def __init__(self, trained: QuantisedLayer) -> None:
        super().__init__()
        quantiser, self.shape = trained.weight_range, trained.original.shape
        self.bits, self.input_high = quantiser.bits, trained.input.high
        integers, scale = quantiser.integers(trained.original)
        input_scale, zero_point = (t.detach().clone() for t in trained.input.range())
        self.register_buffer("packed", pack(integers, self.bits))
        self.register_buffer("scale", scale)
        self.register_buffer("input_scale", input_scale.clamp_min(SMALLEST_SCALE))
        self.register_buffer("input_zero_point", zero_point)
        self.packed: torch.Tensor
        self.scale: torch.Tensor
        self.input_scale: torch.Tensor
        self.input_zero_point: torch.Tensor
        self.layer = copy.deepcopy(trained.layer)
        # torch's `remove_parametrizations` would break the trained layer, whose class it changes
        self.layer.__class__ = parametrize.type_before_parametrizations(self.layer)
        del self.layer.parametrizations
        self.layer.register_buffer("weight", torch.empty(0), persistent=False)

    @property
    def weight(self) -> torch.Tensor:
        """The weight in float32, of the layer's shape."""
        integers = unpack(self.packed, self.bits, self.shape).float()
        return integers * self.scale.view(-1, *(1,) * (len(self.shape) - 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the output of the layer for the quantised input."""
        scale, zero_point = self.input_scale, self.input_zero_point
        x = fake_quantise(x.float(), scale, zero_point, 0, self.input_high)
        out: torch.Tensor = functional_call(self.layer, {"weight": self.weight}, (x,))
        return out


@torch.no_grad()
def deployed(model: nn.Module) -> nn.Module:
    """Return the deployed form of a quantised model, in eval mode; the model is not changed."""
    model = copy.deepcopy(model).eval()
    for name, layer in quantised_layers(model).items():
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, DeployedLayer(layer).eval())
    return model


@dataclass(frozen=True)
class QuantisedSize:
    """Bytes of the deployed network, and bit operations of one image.

    `bitops` adds up multiply-adds times bits of the weight times bits of the activation (Baskin et
    al. 2018, without additions). Products without a quantised weight, as in attention, count 32
    times 32.
    """

    bytes_deployed: int
    bitops: int


def quantised_size(
    model: nn.Module, macs_nonzero: int, masks: Mapping[str, torch.Tensor] | None = None
) -> QuantisedSize:
    """Return the size of a quantised model, whose folded layers `macs_nonzero` counts for an image.

    `masks` have the names of the weights before quantisation. A pruned weight takes no bits, but
    its layer a bitmap or the list of the kept positions, whichever is smaller; or the layer is
    stored without a mask if that is smaller still. Scales, zero points, biases, norms and all other
    parameters take 4 bytes each.
    """
    masks = masks or {}
    weight_bytes, floats, quantised_macs, bitops = 0, 0, 0, 0
    layers = quantised_layers(model)
    ranges = {id(tensor) for layer in layers.values() for tensor in _range_tensors(layer)}
    for name, layer in layers.items():
        total, bits = layer.original.numel(), layer.weight_range.bits
        mask = masks.get(f"{name}.weight")
        kept = total if mask is None else int(mask.count_nonzero())
        weight_bytes += -(-_stored_bits(total, kept, bits) // 8)
        floats += len(layer.original) + 2  # a scale per channel; scale and zero point of the input
        macs = kept * layer.positions
        quantised_macs += macs
        bitops += macs * bits * layer.input.bits
    for tensor in (*model.parameters(), *model.buffers()):
        if id(tensor) not in ranges and tensor.is_floating_point():
            floats += tensor.numel()
    bitops += (macs_nonzero - quantised_macs) * FLOAT_BITS**2
    return QuantisedSize(weight_bytes + 4 * floats, bitops)


def _range_tensors(layer: QuantisedLayer) -> list[torch.Tensor]:
    """Return a layer's float weight and the tensors of its ranges, which count separately."""
    parts = (layer.weight_range, layer.input)
    return [layer.original, *(t for part in parts for t in (*part.parameters(), *part.buffers()))]


def _stored_bits(total: int, kept: int, bits: int) -> int:
    """Return the bits of `total` weights of which `kept` are not pruned."""
    indices = kept * max(1, math.ceil(math.log2(total))) if total > 1 else kept
    return min(total * bits, kept * bits + min(total, indices))
