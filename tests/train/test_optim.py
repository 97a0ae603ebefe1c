import pytest
import torch
from torch import nn

from harness.schema import OptimizerConfig, RecipeConfig, ScheduleConfig
from harness.train.optim import learning_rate, loss_function, make_optimizer


def rates(steps=100, per_epoch=10, **schedule):
    optimizer = OptimizerConfig(lr=0.4)
    config = ScheduleConfig(**schedule)
    return [learning_rate(optimizer, config, k, steps, per_epoch) for k in range(steps)]


def test_cosine_falls_from_the_peak_by_halves_to_its_final_share():
    lrs = rates(name="cosine", final_share=0.1)
    assert lrs[0] == 0.4
    assert lrs[50] == pytest.approx(0.4 * 0.55)
    assert rates(steps=10_000, final_share=0.1)[-1] == pytest.approx(0.04, rel=1e-3)
    assert lrs == sorted(lrs, reverse=True)


def test_warmup_is_linear_and_reaches_the_peak_once():
    lrs = rates(name="constant", warmup_epochs=2.0)
    assert lrs[:20] == pytest.approx([0.4 * (k + 1) / 20 for k in range(20)])
    assert set(lrs[20:]) == {0.4}


def test_a_trunk_is_constant_to_the_bit_until_its_cool_down_and_ends_near_zero():
    lrs = rates(name="trunk", warmup_epochs=2.0, cooldown=0.2)
    assert lrs[:80] == rates(name="constant", warmup_epochs=2.0)[:80]
    assert lrs[80:] == pytest.approx([0.4 * (1 - (k / 20) ** 0.5) for k in range(20)])
    assert 0.0 < lrs[-1] < 0.02
    assert (
        rates(steps=15, name="trunk", cooldown=0.5)[:8] == [0.4] * 8
    )  # of a level: no whole epoch


def test_rounded_shares_of_whole_epochs_begin_where_an_epoch_ends():
    lrs = rates(steps=7000, per_epoch=1000, name="trunk", cooldown=0.142857)
    assert lrs[:6001] == [0.4] * 6001
    assert lrs[6001] < 0.4


def test_steps_down_at_the_milestones_of_the_whole_stage():
    lrs = rates(name="step", milestones=(0.5, 0.75), gamma=0.1)
    assert lrs == pytest.approx([0.4] * 50 + [0.04] * 25 + [0.004] * 25)


@pytest.mark.parametrize("everywhere", [False, True])
@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_norms_and_biases_are_decayed_only_when_asked(name, everywhere):
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))
    before = {key: value.clone() for key, value in module.state_dict().items()}
    config = OptimizerConfig(name=name, lr=0.5, weight_decay=0.2, decay_norm_and_bias=everywhere)
    optimizer = make_optimizer(module, config)
    for parameter in module.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for key, value in module.named_parameters():
        decayed = everywhere or key in ("0.weight", "2.weight")
        assert torch.allclose(value, before[key] * (0.9 if decayed else 1.0)), key


def test_the_loss_is_smoothed_cross_entropy_of_labels_or_shares():
    recipe = RecipeConfig(
        epochs=1, batch_size=2, optimizer=OptimizerConfig(lr=0.1), label_smoothing=0.2
    )
    logits = torch.tensor([[2.0, 0.0, -1.0], [0.5, 0.5, 0.0]])
    labels = torch.tensor([0, 2])
    shares = torch.eye(3)[labels] * 0.8 + 0.2 / 3
    expected = -(shares * logits.log_softmax(1)).sum(1).mean()
    assert torch.allclose(loss_function(recipe, logits, labels), expected)
    assert torch.allclose(loss_function(recipe, logits, torch.eye(3)[labels]), expected)
