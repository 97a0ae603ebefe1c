"""The workaround for torch's faulty strided 1x1 convolutions on a CPU."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from harness.models import registry
from harness.models.pointwise import StridedPointwise, replace_strided_pointwise
from harness.schema import ModelConfig

TRAINING = """
import torch
from torch.nn import functional
from harness.models import registry
from harness.schema import ModelConfig
torch.set_num_threads(1)
model = registry.build(ModelConfig(family="cifar_resnet", depth=8, width=0.25), 10, seed=0)
model = model.to(memory_format=torch.channels_last)
for _ in range(10):  # without the workaround, the first step ends the process
    images = torch.randn(64, 3, 64, 64).contiguous(memory_format=torch.channels_last)
    functional.cross_entropy(model(images), torch.randint(0, 10, (64,))).backward()
print("finished")
"""


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("stride", "side"), [(2, 9), (3, 8), ((1, 2), 7)])
def test_outputs_and_gradients_are_those_of_the_plain_convolution(layout, stride, side):
    plain = nn.Conv2d(6, 4, 1, stride=stride, groups=2).to(memory_format=layout)
    replacement = replace_strided_pointwise(nn.Conv2d(6, 4, 1, stride=stride, groups=2))
    replacement.to(memory_format=layout)
    assert isinstance(replacement, StridedPointwise)
    replacement.load_state_dict(plain.state_dict())
    images = torch.randn(3, 6, side, side).contiguous(memory_format=layout)
    results = []
    for layer in (plain, replacement):
        inputs = images.clone().requires_grad_()
        out = layer(inputs)
        out.square().sum().backward()
        results.append((out, inputs.grad, layer.weight.grad, layer.bias.grad))
    for expected, actual in zip(*results, strict=True):
        torch.testing.assert_close(expected, actual, rtol=1e-4, atol=1e-5)


def test_other_convolutions_are_not_replaced():
    layers = [nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 3, stride=2), nn.Conv2d(3, 4, 1, 2, padding=1)]
    assert all(replace_strided_pointwise(layer) is layer for layer in layers)


@pytest.mark.parametrize("family", ["cifar_resnet", "resnet"])
def test_all_strided_pointwise_convolutions_of_a_built_model_are_replaced(family):
    depth = 8 if family == "cifar_resnet" else 18
    model = registry.build(ModelConfig(family=family, depth=depth), 10, seed=0)
    strided = [
        layer
        for layer in model.modules()
        if isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1) and layer.stride != (1, 1)
    ]
    assert strided
    assert all(isinstance(layer, StridedPointwise) for layer in strided)


@pytest.mark.slow
def test_a_training_that_used_to_corrupt_the_heap_ends():
    """It has a process of its own, because a corrupt heap may also crash at Python's exit."""
    words = [sys.executable, "-c", TRAINING]
    assert subprocess.run(words, capture_output=True, text=True, check=True).stdout == "finished\n"
