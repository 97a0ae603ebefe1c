import copy
import dataclasses
import gc
import weakref

import pytest
import torch
from torch import nn

from harness.compress import masks as pruning
from harness.errors import UserError
from harness.models import registry
from harness.run_schema import RunConfig
from harness.schema import ModelConfig, OptimizerConfig, RecipeConfig
from harness.train.engine import make_engine

ENGINES = [("ddp", 0), ("deepspeed", 0), ("deepspeed", 1)]
SGD = OptimizerConfig(lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
ADAMW = OptimizerConfig(name="adamw", lr=0.001, weight_decay=0.05)


def resnet():
    return registry.build(ModelConfig(family="cifar_resnet", depth=8, width=0.25), 10, seed=0)


def halved(module):
    names = pruning.prunable(module, ("classifier",), {"classifier": ("fc",)})
    masks = pruning.magnitude_masks(module, 0.5, names)
    pruning.apply_masks(module, masks)
    return masks


def recipe(optimizer=SGD, **changes):
    return RecipeConfig(epochs=1, batch_size=32, optimizer=optimizer, **changes)


def engine(world, kind, module, recipe, masks=None, micro_batches=1, **run):
    name, zero = kind
    run = RunConfig(engine=name, zero_stage=zero, device="cpu", **run)
    return make_engine(module, recipe, run, world, masks, micro_batches)


def batches(count, size=32):
    generator = torch.Generator().manual_seed(1)
    for _ in range(count):
        images = torch.randn(size, 3, 8, 8, generator=generator)
        yield images, torch.randint(0, 10, (size,), generator=generator)


def losses(stepper, count, lr=0.1):
    return [float(stepper.train_step([batch], lr)) for batch in batches(count)]


# Small learning rates: at larger ones a training is chaotic, and the last bits that ZeRO 1's flat
# buffer moves grow to a percent within 50 steps on some kinds of CPU.
CALM = [SGD.model_copy(update={"lr": 0.02}), ADAMW.model_copy(update={"lr": 1e-4})]


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", CALM, ids=["sgd", "adamw"])
def test_deepspeed_and_ddp_lose_alike_over_50_steps(world, optimizer):
    twin = engine(world, ("ddp", 0), resnet(), recipe(optimizer))
    expected = losses(twin, 50, optimizer.lr)
    for zero in (0, 1):
        stepper = engine(world, ("deepspeed", zero), resnet(), recipe(optimizer))
        measured = losses(stepper, 50, optimizer.lr)
        assert measured == pytest.approx(expected, rel=1e-5)
        if zero == 0:
            assert measured == expected


@pytest.mark.parametrize("kind", ENGINES[1:])
def test_under_autocast_gradients_and_weights_stay_fp32(world, kind):
    plain = recipe(OptimizerConfig(lr=1.0, momentum=0.0), precision="bf16_autocast")
    twin, stepper = (engine(world, k, resnet(), plain) for k in (("ddp", 0), kind))
    full = engine(world, ("ddp", 0), resnet(), recipe(OptimizerConfig(lr=1.0, momentum=0.0)))
    for one in (twin, stepper, full):
        losses(one, 1, lr=1.0)  # moves each weight by its gradient
    start = resnet().fc.weight
    gradient = start - twin.module.fc.weight
    assert gradient.norm() > 0.1
    assert torch.allclose(start - stepper.module.fc.weight, gradient, rtol=1e-4, atol=1e-6)
    assert not torch.allclose(start - full.module.fc.weight, gradient, rtol=1e-3, atol=1e-6)
    assert {p.dtype for p in stepper.module.parameters()} == {torch.float32}


class Plain(nn.Sequential):
    """Without batch norm, so that a batch may be cut without changing any gradient."""

    def __init__(self):
        torch.manual_seed(0)
        super().__init__(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))


@pytest.mark.parametrize("kind", ENGINES)
def test_uneven_micro_batches_weigh_every_sample_alike(world, kind):
    whole, cut = (engine(world, kind, Plain(), recipe(), micro_batches=n) for n in (1, 4))
    for images, targets in batches(5):
        expected = whole.train_step([(images, targets)], 0.1)
        pieces = list(zip(images.split(9), targets.split(9), strict=True))  # 9, 9, 9, 5
        assert torch.allclose(cut.train_step(pieces, 0.1), expected, rtol=1e-5)
    for a, b in zip(whole.module.parameters(), cut.module.parameters(), strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("optimizer", [SGD, ADAMW], ids=["sgd", "adamw"])
@pytest.mark.parametrize("precision", ["fp32", "bf16_autocast"])
@pytest.mark.parametrize("kind", ENGINES)
def test_no_pruned_weight_comes_back(world, kind, precision, optimizer):
    module = resnet()
    free = {name: value.clone() for name, value in module.named_parameters()}
    masks = halved(module)
    stepper = engine(world, kind, module, recipe(optimizer, precision=precision), masks)
    for batch in batches(8):
        stepper.train_step([batch], optimizer.lr)
        for name, weight in stepper.module.named_parameters():
            if name in masks:
                assert (weight[~masks[name]] == 0.0).all(), name
    for name, mask in masks.items():
        moved = dict(stepper.module.named_parameters())[name][mask] != free[name][mask]
        assert moved.float().mean() > 0.9, name  # what is kept goes on learning
    pruned = sum(int((~mask).sum()) for mask in masks.values())
    for key in ("momentum_buffer",) if optimizer is SGD else ("exp_avg", "exp_avg_sq"):
        state = stepper.optimizer.state.values()
        assert sum(int((kept[key] == 0.0).sum()) for kept in state) >= pruned
    if kind[1]:
        assert sum(int((shard == 0.0).sum()) for shard in stepper.shards) >= pruned


def test_masks_hold_against_a_gradient_that_is_not_a_number(world):
    module = resnet()
    masks = halved(module)
    stepper = engine(world, ("ddp", 0), module, recipe(), masks)
    images, targets = next(batches(1))
    stepper.train_step([(images * float("nan"), targets)], 0.1)
    for name, weight in module.named_parameters():
        assert not torch.isfinite(weight).all()
        if name in masks:
            assert (weight[~masks[name]] == 0.0).all()


@pytest.mark.parametrize("kind", ENGINES)
def test_a_state_goes_on_to_the_bit_and_ddp_and_zero_0_share_it(world, kind):
    module = resnet()
    masks = halved(module)
    unbroken = engine(world, kind, module, recipe(), masks)
    stream = list(batches(6))
    for batch in stream[:3]:
        unbroken.train_step([batch], 0.1)
    state = copy.deepcopy(unbroken.state())
    expected = [unbroken.train_step([batch], 0.05) for batch in stream[3:]]
    for other in [kind] if kind[1] else ENGINES[:2]:
        resumed = engine(world, other, resnet(), recipe(), masks)
        resumed.load_state(copy.deepcopy(state))
        assert [resumed.train_step([batch], 0.05) for batch in stream[3:]] == expected
        for a, b in zip(resumed.module.parameters(), module.parameters(), strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("kind", ENGINES[:2])
def test_channels_last_lasts(world, kind):
    stepper = engine(world, kind, resnet(), recipe(), channels_last=True)
    losses(stepper, 2)
    weight = stepper.module.get_parameter("blocks.0.conv1.weight")
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert not weight.is_contiguous()


def test_statistics_over_ranks_on_cpu_are_refused_with_the_remedy(world):
    two = dataclasses.replace(world, size=2)
    with pytest.raises(UserError, match=r"run\.processes=1"):
        engine(two, ("ddp", 0), resnet(), recipe(sync_bn=True))
    engine(world, ("ddp", 0), resnet(), recipe(sync_bn=True))  # one rank needs nothing


def test_a_closed_deepspeed_engine_lets_its_model_go(world):
    module = resnet()
    stepper = engine(world, ("deepspeed", 1), module, recipe())
    losses(stepper, 1)
    stepper.close()
    alive = weakref.ref(module)
    del module, stepper
    gc.collect()
    assert alive() is None
