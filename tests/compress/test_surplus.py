"""Additional parameters in training: the deployed model has exactly those of the small model."""

import pytest
import torch

from harness.compress.surplus import make_graph
from harness.errors import UserError
from harness.models import registry
from harness.models.counts import count
from harness.models.family import FAMILIES
from harness.schema import ModelConfig, StageSurplus

SLICE = StageSurplus(form="slice", widths=(1.5, 2.0), share=0.5)
FUSE = StageSurplus(form="fuse", expand=2)
DEPTHS = {"cifar_resnet": 8, "wide_resnet": 10, "cifar_stem_resnet": 18, "resnet": 18}
DEPTHS["efficientnet"] = 16


def build(width, family="cifar_resnet"):
    config = ModelConfig(family=family, depth=DEPTHS.get(family), width=width)
    return registry.build(config, 10, seed=0, resolution=32)


def graph(surplus, family="cifar_resnet"):
    torch.manual_seed(1)
    return make_graph(surplus, build(0.5, family), lambda times: build(0.5 * times, family))


def trained(training, steps=4, total=8):
    """Return the graph after a few training steps, so that all branches have changed."""
    optimizer = torch.optim.SGD(training.parameters(), lr=0.05, momentum=0.9)
    training.train()
    for step in range(steps):
        training.begin_step(0, step, total)
        outputs = training(torch.randn(8, 3, 32, 32))
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        loss = sum(torch.nn.functional.cross_entropy(o, torch.arange(8)) for o in outputs)
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is not None for p in training.parameters())  # DDP needs all gradients
        optimizer.step()
    return training


def assert_same_layers(one, other):
    assert [(n, type(m)) for n, m in one.named_modules()] == [
        (n, type(m)) for n, m in other.named_modules()
    ]
    shapes = [{n: t.shape for n, t in m.state_dict().items()} for m in (one, other)]
    assert shapes[0] == shapes[1]
    assert count(one, 32) == count(other, 32)


@pytest.mark.slow
@pytest.mark.parametrize("family", [n for n, f in FAMILIES.items.items() if f.conv_norm_pairs])
def test_fused_equals_its_training_graph_and_is_the_small_model(family):
    training = trained(graph(FUSE, family)).eval()
    images = torch.randn(4, 3, 32, 32)
    small = training.deployed().eval()
    with torch.no_grad():
        assert (small(images) - training(images)).abs().max() < 1e-4
    assert_same_layers(small, build(0.5, family))
    assert training.macs(32) > 2 * count(small, 32).macs_dense


def test_the_folded_convolution_depends_on_every_branch():
    training = trained(graph(FUSE)).eval()
    before = training.deployed().conv1.weight.clone()
    for branch in ("base", "point", "chain"):
        norm = training.graph.conv1.norms[branch]
        norm.weight.data.mul_(2.0)
        after = training.deployed().conv1.weight
        assert not torch.allclose(before, after)
        before = after.clone()
    assert "identity" in training.graph.blocks[0].conv2.norms
    assert "identity" not in training.graph.conv1.norms  # 3 channels in, 8 out


@pytest.mark.slow
@pytest.mark.parametrize("family", [n for n, f in FAMILIES.items.items() if f.nested_widths])
def test_a_slice_is_the_small_model_and_starts_with_the_same_weights(family):
    training, plain = graph(SLICE, family), build(0.5, family)
    small = training.deployed()
    assert_same_layers(small, plain)
    for name, parameter in small.named_parameters():
        assert torch.equal(parameter, plain.get_parameter(name))


def test_a_wider_network_trains_in_each_step_but_not_in_the_last_part_of_the_training():
    training = graph(SLICE)
    drawn = set()
    for step in range(40):
        training.begin_step(3, step, 80)
        drawn.add(training.active())
    assert drawn == {"1", "2"}  # both wider networks
    assert len(training.train()(torch.randn(2, 3, 32, 32))) == 2
    wide = training.macs(32)
    training.begin_step(3, 40, 80)
    assert training(torch.randn(2, 3, 32, 32)).shape == (2, 10)
    assert wide > training.macs(32) == count(build(0.5), 32).macs_dense
    moved = trained(graph(SLICE))
    fresh = graph(SLICE)
    outside = moved.wide.fc.weight[:, 32:] - fresh.wide.fc.weight[:, 32:]
    assert outside.abs().max() > 0  # channels that only wider networks have
    deployed = moved.deployed().fc.weight
    assert torch.equal(deployed, moved.wide.fc.weight[:, :32])


def test_a_model_that_the_form_does_not_suit_is_refused():
    with pytest.raises(UserError, match=r"fuse finds no convolution"):
        make_graph(FUSE, torch.nn.Sequential(torch.nn.Linear(3, 3)), lambda times: None)
    with pytest.raises(UserError, match=r"not wider than the small one"):
        make_graph(SLICE, build(0.5), lambda times: build(0.5 if times < 2 else 1.0))
    with pytest.raises(UserError, match=r"differ in their layers"):
        make_graph(SLICE, build(0.5), lambda times: build(0.5, "wide_resnet"))
