"""Estimating batch-norm statistics again: what changes, and what does not."""

import pytest
import torch
from torch import nn

from harness.compress.batchnorm import reestimate
from harness.models.families.cifar_resnet import build


def batches(number=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(16, 3, 8, 8, generator=generator) * 2 + 1 for _ in range(number)]


def test_the_first_layers_statistics_are_the_average_over_the_batches():
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 2, 1))
    model[0].running_mean += 5.0
    data = batches()
    reestimate(model, data)
    mean = torch.stack([images.mean((0, 2, 3)) for images in data]).mean(0)
    variance = torch.stack([images.var((0, 2, 3)) for images in data]).mean(0)
    torch.testing.assert_close(model[0].running_mean, mean)
    torch.testing.assert_close(model[0].running_var, variance)


def test_nothing_but_the_statistics_changes_and_they_repeat_to_the_bit():
    torch.manual_seed(0)
    first, second = build(8, 0.5, 10, 3).eval(), build(8, 0.5, 10, 3).train()
    second.load_state_dict(first.state_dict())
    for _ in range(3):  # gives the second model other running statistics, which must not matter
        second(torch.randn(8, 3, 8, 8))
    second.fc.eval()
    before = {name: value.clone() for name, value in first.named_parameters()}
    for model in (first, second):
        reestimate(model, batches())
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name
    assert all(torch.equal(value, before[name]) for name, value in first.named_parameters())
    assert not first.training
    assert second.training
    assert not second.fc.training
    assert {m.momentum for m in second.modules() if isinstance(m, nn.BatchNorm2d)} == {0.1}


def test_dropout_is_off_while_statistics_are_estimated():
    model = nn.Sequential(nn.Dropout(0.9), nn.BatchNorm2d(3))
    data = batches()
    reestimate(model, data)
    mean = torch.stack([images.mean((0, 2, 3)) for images in data]).mean(0)
    torch.testing.assert_close(model[1].running_mean, mean)


def test_no_graph_for_gradients_is_built():
    model = build(8, 0.5, 10, 3)
    outputs = []
    model.fc.register_forward_hook(lambda module, inputs, output: outputs.append(output))
    reestimate(model, batches(1))
    assert not outputs[0].requires_grad


def test_a_model_with_batch_norm_needs_a_batch_and_another_model_does_not():
    with pytest.raises(ValueError, match="no batch"):
        reestimate(build(8, 0.5, 10, 3), [])
    reestimate(nn.Linear(2, 2), [])
