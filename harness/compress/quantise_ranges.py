"""Fake quantisation of weights and activations, with learned or averaged ranges.

A quantised value is scale * (q - zero_point) with an integer q of `bits` bits. Rounding, clipping
and the straight-through gradient are those of torch's public operators `fake_quantize_per_*`. They
have no gradient for the scale, so the gradient of a learned scale is added here.

Weights are symmetric with a scale for each output channel (Krishnamoorthi 2018, section 2.2): their
zero point is 0, so a pruned weight stays exactly zero. Activations have one scale and one zero
point for the tensor. If the calibration images give no negative value, the zero point is 0, as in
Esser et al. 2020. Otherwise it is an integer between the ends, because GELU, SiLU and normalised
images have a short negative side (Krishnamoorthi 2018, section 2.1; Bhalgat et al. 2020). Zero is
always exact, so the padding of a convolution is exact, too.

Learned scales (LSQ, Esser et al. 2020) start from 2 * mean|v| / sqrt(Qp), and their gradients are
multiplied by 1 / sqrt(N * Qp). Qp is the greatest number of steps on one side of zero. N is the
number of weights of an output channel, or of values that an image has in this activation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

BITS = (2, 3, 4, 6, 8)
MOMENTUM = 0.01
"""Weight of a batch in the moving averages of a range: torch's `MovingAverageMinMaxObserver`."""
SMALLEST_SCALE = torch.finfo(torch.float32).eps


def fake_quantise(
    x: torch.Tensor,
    scale: torch.Tensor,
    zero_point: torch.Tensor,
    low: int,
    high: int,
    gradient_scale: float = 1.0,
) -> torch.Tensor:
    """Return x (float32) rounded to multiples of the scale and clipped to the integers low to high.

    With one scale, x is quantised as a whole, else along its first dimension. `zero_point` is an
    int32 tensor of the scale's shape. A scale that requires a gradient gets that of LSQ (Esser et
    al. 2020, equation 3), multiplied by `gradient_scale`. As in torch's operators, a value counts
    as clipped if it is outside after rounding.
    """
    fixed = scale.detach().clamp_min(SMALLEST_SCALE)
    if scale.numel() == 1:
        out = torch.fake_quantize_per_tensor_affine(x, fixed, zero_point, low, high)
    else:
        out = torch.fake_quantize_per_channel_affine(x, fixed, zero_point, 0, low, high)
    if not (scale.requires_grad and torch.is_grad_enabled()):
        return out
    shape = (-1, *(1,) * (x.ndim - 1))
    with torch.no_grad():
        steps = fixed.view(shape)
        rounded = torch.round(x * (1.0 / steps)) + zero_point.view(shape)
        is_inside = (rounded >= low) & (rounded <= high)
        slope = torch.where(is_inside, out - x, out) / steps * gradient_scale
    # the difference is zero, so this adds a gradient and leaves the value as it is
    return out + (scale - scale.detach()).view(shape) * slope


def weight_integers(bits: int) -> tuple[int, int]:
    """Return the smallest and the greatest integer of a weight."""
    return -(2 ** (bits - 1)), 2 ** (bits - 1) - 1


class WeightRange(nn.Module):
    """Parametrisation of a layer's weight [O, ...] by its quantised values.

    A learned scale is a parameter. Otherwise the scale follows the greatest absolute weight of each
    channel in every forward pass.
    """

    def __init__(self, weight: torch.Tensor, bits: int, is_learned: bool) -> None:
        super().__init__()
        self.bits = bits
        self.low, self.high = weight_integers(bits)
        self.is_learned = is_learned
        zero_points = torch.zeros(len(weight), dtype=torch.int32, device=weight.device)
        self.register_buffer("zero_point", zero_points, persistent=False)
        self.zero_point: torch.Tensor
        if is_learned:
            size = weight.detach().abs().flatten(1)
            kept = size.count_nonzero(1).clamp_min(1)  # pruned weights are not part of the mean
            scale = 2.0 * size.sum(1) / kept / math.sqrt(self.high)
            self.learned_scale = nn.Parameter(scale.clamp_min(SMALLEST_SCALE))

    def scale(self, weight: torch.Tensor) -> torch.Tensor:
        """Return the scale of each output channel, float [O]."""
        if self.is_learned:
            return self.learned_scale
        greatest = weight.detach().abs().flatten(1).amax(1)
        return (greatest / self.high).clamp_min(SMALLEST_SCALE)

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """Return the quantised weight, a float tensor of the same shape."""
        gradient_scale = 1.0 / math.sqrt(weight[0].numel() * self.high)
        scale = self.scale(weight)
        return fake_quantise(weight, scale, self.zero_point, self.low, self.high, gradient_scale)

    @torch.no_grad()
    def integers(self, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the integers (int8, of the weight's shape) and the scales (float [O])."""
        scale = self.scale(weight).clamp_min(SMALLEST_SCALE)
        steps = scale.view(-1, *(1,) * (weight.ndim - 1))
        return torch.round(self(weight) / steps).to(torch.int8), scale.clone()


@dataclass
class Statistics:
    """What calibration has seen of an activation: sums over batches and numbers of values."""

    batches: int = 0
    values: int = 0
    absolute: float = 0.0
    minimum: float = 0.0
    maximum: float = 0.0

    def add(self, x: torch.Tensor) -> None:
        """Add a batch."""
        low, high = x.aminmax()
        self.batches += 1
        self.values += x.numel()
        self.absolute += float(x.abs().sum(dtype=torch.float64))
        self.minimum += float(low)
        self.maximum += float(high)


class ActivationRange(nn.Module):
    """Fake quantisation of a layer's input, with one scale and zero point for the tensor.

    Calibration has to set the range before the first use: set `statistics`, pass images, call
    `take_statistics`. Meanwhile the input passes unchanged. Averaged ranges go on to follow the
    batches in training mode.
    """

    def __init__(self, bits: int, is_learned: bool) -> None:
        super().__init__()
        self.bits, self.high = bits, 2**bits - 1
        self.is_learned = is_learned
        self.statistics: Statistics | None = None
        if is_learned:
            self.learned_scale = nn.Parameter(torch.ones(1))
            self.register_buffer("zero_point", torch.zeros(1, dtype=torch.int32))
            self.zero_point: torch.Tensor
        else:
            self.register_buffer("minimum", torch.zeros(1))
            self.register_buffer("maximum", torch.ones(1))
            self.minimum: torch.Tensor
            self.maximum: torch.Tensor

    def range(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return scale (float [1]) and zero point (int32 [1])."""
        if self.is_learned:
            return self.learned_scale, self.zero_point
        return self._affine(self.minimum, self.maximum)

    def _affine(
        self, minimum: torch.Tensor, maximum: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return scale and zero point of a range, extended so that it includes zero."""
        low, high = minimum.clamp_max(0.0), maximum.clamp_min(0.0)
        scale = ((high - low) / self.high).clamp_min(SMALLEST_SCALE)
        return scale, torch.round(-low / scale).clamp(0, self.high).int()

    @torch.no_grad()
    def take_statistics(self) -> None:
        """Set the range from the statistics, which are then dropped."""
        seen, self.statistics = self.statistics, None
        assert seen is not None
        assert seen.batches
        like = self.learned_scale if self.is_learned else self.minimum
        minimum = torch.full_like(like, seen.minimum / seen.batches)
        maximum = torch.full_like(like, seen.maximum / seen.batches)
        if not self.is_learned:
            self.minimum.copy_(minimum)
            self.maximum.copy_(maximum)
            return
        self.zero_point.copy_(self._affine(minimum, maximum)[1])
        mean = seen.absolute / seen.values
        self.learned_scale.fill_(max(2.0 * mean / math.sqrt(self._steps()), SMALLEST_SCALE))

    def _steps(self) -> int:
        """Return Qp, the greatest number of steps on one side of zero."""
        zero = int(self.zero_point)
        return max(zero, self.high - zero)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the quantised input in float32."""
        x = x.float()
        if self.statistics is not None:
            self.statistics.add(x.detach())
            return x
        if not self.is_learned:
            if self.training:
                self._follow(x.detach())
            return fake_quantise(x, *self.range(), 0, self.high)
        factor = 1.0
        if torch.is_grad_enabled() and self.learned_scale.requires_grad:
            factor = 1.0 / math.sqrt(x[0].numel() * self._steps())
        return fake_quantise(x, *self.range(), 0, self.high, factor)

    @torch.no_grad()
    def _follow(self, x: torch.Tensor) -> None:
        """Move the averages towards the extremes of a batch."""
        low, high = x.aminmax()
        self.minimum += MOMENTUM * (low - self.minimum)
        self.maximum += MOMENTUM * (high - self.maximum)
