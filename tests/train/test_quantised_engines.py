"""Quantised networks in the engines: equal losses, masks that hold, resumption to the bit."""

import copy

import pytest
import torch

from harness.compress import masks as pruning
from harness.compress.quantise_layers import (
    Quantisation,
    calibrate,
    quantise,
    quantised_layers,
    training_masks,
)
from harness.models import registry
from harness.run_schema import RunConfig
from harness.schema import ModelConfig, OptimizerConfig, RecipeConfig
from harness.train.engine import make_engine

ENGINES = [("ddp", 0), ("deepspeed", 0), ("deepspeed", 1)]
RECIPE = RecipeConfig(
    epochs=1, batch_size=32, optimizer=OptimizerConfig(lr=0.01, momentum=0.9, weight_decay=5e-4)
)


def batches(start, stop):
    for number in range(start, stop):
        generator = torch.Generator().manual_seed(number)
        images = torch.randn(32, 3, 8, 8, generator=generator)
        yield images, torch.randint(0, 10, (32,), generator=generator)


def network(ranges):
    """Return a quantised network, half of whose weights are pruned, and its masks."""
    config = ModelConfig(family="cifar_resnet", depth=8, width=0.25)
    model = registry.build(config, 10, seed=0)
    names = pruning.prunable(model, ("classifier",), {"classifier": ("fc",)})
    masks = pruning.magnitude_masks(model, 0.5, names)
    pruning.apply_masks(model, masks)
    images = [images for images, _ in batches(90, 92)]
    quantised = quantise(model, images[0][:2], Quantisation(weights=4, ranges=ranges))
    calibrate(quantised, images)
    return quantised, training_masks(masks)


def engine(world, kind, ranges):
    name, zero = kind
    run = RunConfig(engine=name, zero_stage=zero, device="cpu")
    module, masks = network(ranges)
    return make_engine(module, RECIPE, run, world, masks)


def losses(stepper, start, stop):
    return [float(stepper.train_step([batch], 0.01)) for batch in batches(start, stop)]


@pytest.mark.slow
@pytest.mark.parametrize("ranges", ["learned", "average"])
def test_quantised_networks_lose_alike_in_all_engines(world, ranges):
    expected, *others = (losses(engine(world, kind, ranges), 0, 10) for kind in ENGINES)
    assert others[0] == expected
    assert others[1] == pytest.approx(expected, rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("ranges", ["learned", "average"])
@pytest.mark.parametrize("kind", ENGINES)
def test_a_quantised_network_resumes_to_the_bit_with_its_pruned_weights_at_zero(
    world, kind, ranges
):
    whole = engine(world, kind, ranges)
    losses(whole, 0, 3)
    state = copy.deepcopy(whole.state())
    expected = losses(whole, 3, 6)
    resumed = engine(world, kind, ranges)
    resumed.load_state(state)
    assert losses(resumed, 3, 6) == expected
    final, again = whole.module.state_dict(), resumed.module.state_dict()
    assert all(torch.equal(final[name], again[name]) for name in final)
    masks = network(ranges)[1]
    for name, layer in quantised_layers(resumed.module).items():
        mask = masks.get(f"{name}.layer.parametrizations.weight.original")
        if mask is not None:
            assert not layer.original[~mask].any()
            assert not layer.weight[~mask].any()
