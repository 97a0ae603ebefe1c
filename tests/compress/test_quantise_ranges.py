"""Rounding, ranges and gradients of quantised weights and activations, against torch's own."""

import math

import pytest
import torch

from harness.compress.quantise_ranges import (
    BITS,
    ActivationRange,
    Statistics,
    WeightRange,
    fake_quantise,
    weight_integers,
)


@pytest.mark.parametrize("bits", BITS)
def test_per_channel_values_and_gradients_equal_those_of_torchs_learnable_operator(bits):
    low, high = weight_integers(bits)
    weight = torch.randn(7, 5, 3, 3, requires_grad=True)
    scale = (torch.rand(7) * 0.5 + 0.05).requires_grad_()
    out = fake_quantise(weight, scale, torch.zeros(7, dtype=torch.int32), low, high, 0.25)
    upstream = torch.randn_like(out)
    ours = torch.autograd.grad(out, (weight, scale), upstream)
    expected = torch._fake_quantize_learnable_per_channel_affine(
        weight, scale, torch.zeros(7), 0, low, high, 0.25
    )
    theirs = torch.autograd.grad(expected, (weight, scale), upstream)
    assert torch.equal(out, expected)
    assert torch.equal(ours[0], theirs[0])
    torch.testing.assert_close(ours[1], theirs[1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("bits", BITS)
def test_per_tensor_values_and_gradients_equal_those_of_torchs_learnable_operator(bits):
    high, zero = 2**bits - 1, 2 ** (bits - 1) - 1
    x = torch.randn(6, 5, 4, requires_grad=True)
    scale = torch.tensor([0.13], requires_grad=True)
    out = fake_quantise(x, scale, torch.tensor([zero], dtype=torch.int32), 0, high, 0.5)
    upstream = torch.randn_like(out)
    ours = torch.autograd.grad(out, (x, scale), upstream)
    expected = torch._fake_quantize_learnable_per_tensor_affine(
        x, scale, torch.tensor([float(zero)]), 0, high, 0.5
    )
    theirs = torch.autograd.grad(expected, (x, scale), upstream)
    assert torch.equal(out, expected)
    assert torch.equal(ours[0], theirs[0])
    torch.testing.assert_close(ours[1], theirs[1], rtol=1e-4, atol=1e-4)


def test_learned_scales_start_where_esser_et_al_put_them():
    weight = torch.randn(6, 4, 3, 3)
    scale = WeightRange(weight, 4, is_learned=True).scale(weight)
    torch.testing.assert_close(scale, 2 * weight.abs().mean((1, 2, 3)) / math.sqrt(7))
    x = torch.rand(8, 5, 3)
    activation = calibrated(x, bits=4, is_learned=True)
    torch.testing.assert_close(activation.range()[0], 2 * x.mean()[None] / math.sqrt(15))
    assert activation.range()[1].item() == 0


def test_gradients_of_learned_scales_are_divided_as_in_esser_et_al():
    weight = torch.randn(2, 4, 3, 3)
    quantiser = WeightRange(weight, 3, is_learned=True)
    quantiser(weight).sum().backward()
    scale = quantiser.learned_scale.detach().clone().requires_grad_()
    fake_quantise(weight, scale, torch.zeros(2, dtype=torch.int32), -4, 3).sum().backward()
    expected = scale.grad / math.sqrt(36 * 3)
    torch.testing.assert_close(quantiser.learned_scale.grad, expected)


def calibrated(x, bits, is_learned):
    activation = ActivationRange(bits, is_learned)
    activation.statistics = Statistics()
    assert torch.equal(activation(x), x)
    activation.take_statistics()
    return activation


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("is_learned", [True, False])
def test_zero_is_exact_whatever_the_range_of_an_activation(bits, is_learned):
    activation = calibrated(torch.randn(64) - 0.7, bits, is_learned).eval()
    assert activation(torch.zeros(3)).tolist() == [0.0, 0.0, 0.0]


def test_average_ranges_follow_training_batches_as_torchs_observer_does():
    from torch.ao.quantization.observer import MovingAverageMinMaxObserver

    batches = [torch.randn(32) * (i + 1) for i in range(4)]
    activation = calibrated(batches[0], bits=8, is_learned=False)
    observer = MovingAverageMinMaxObserver(dtype=torch.quint8, quant_min=0, quant_max=255)
    observer(batches[0])
    for batch in batches[1:]:
        activation.train()(batch)
        observer(batch)
    activation.eval()(torch.full((4,), 99.0))  # evaluation does not move them
    scale, zero_point = observer.calculate_qparams()
    torch.testing.assert_close(activation.range()[0], scale.reshape(1))
    assert activation.range()[1].item() == zero_point.item()
