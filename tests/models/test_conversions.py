"""Batch norm over several ranks, and models of timm without dropout: nothing else changes."""

import copy

import pytest
import torch
from timm.layers import RotaryEmbeddingCat
from torch import nn

from harness.errors import UserError
from harness.models import registry
from harness.models.conversions import switch_off_dropout, synchronise_batch_norm
from harness.schema import ModelConfig

Norm = nn.modules.batchnorm._BatchNorm
SMALL = [  # models of timm with batch norm, some with an activation inside the norm
    "test_resnet", "test_efficientnet", "test_byobnet", "mobilenetv2_050", "mobilenetv3_small_050",
    "regnetx_002", "densenet121", "levit_128s", "ghostnet_050", "resnet10t",
]  # fmt: skip
# models of timm with a dropout probability above 0 by default, and others that have such layers
DROPPING = [
    ("cpubone_nano", 64), ("densenet121", 64), ("efficientvit_m0", 224), ("fasternet_t0", 64),
    ("focalnet_tiny_srf", 64), ("ghostnet_050", 64), ("hiera_tiny_224", 224),
    ("legacy_seresnet18", 64), ("nest_tiny", 224), ("nextvit_small", 64), ("repghostnet_050", 64),
    ("rexnet_100", 64), ("sequencer2d_s", 224), ("swin_tiny_patch4_window7_224", 64),
    ("swinv2_cr_tiny_ns_224", 64), ("test_coatnet", 64), ("test_efficientnet", 64),
    ("test_mambaout", 64), ("test_nfnet", 64), ("test_vit", 64), ("test_vit4", 64),
    ("tiny_vit_5m_224", 224), ("vgg11", 32), ("vit_small_plus_patch16_dinov3", 64),
    ("volo_d1_224", 224),
]  # fmt: skip


def configs():
    configs = [ModelConfig(family=f"timm:{name}") for name in SMALL]
    for name in registry.FAMILIES.names():
        depths = registry.FAMILIES.get(name).depths
        configs.append(ModelConfig(family=name, depth=depths[0] if depths else None, width=0.5))
    return configs


@pytest.mark.parametrize("config", configs(), ids=lambda config: config.family)
def test_training_draws_no_numbers_and_synchronised_batch_norm_returns_the_same(config):
    model = registry.build(config, 10, seed=0, resolution=64)
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(model(images), model(images))
    model.eval()
    for module in model.modules():
        if isinstance(module, Norm):
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.9, 1.1)
    converted = synchronise_batch_norm(copy.deepcopy(model))
    with torch.no_grad():
        assert torch.equal(converted(images), model(images))
    assert converted.state_dict().keys() == model.state_dict().keys()
    after = dict(converted.named_modules())
    assert after.keys() == dict(model.named_modules()).keys()
    for name, old in model.named_modules():
        if isinstance(old, Norm):
            assert isinstance(after[name], nn.SyncBatchNorm)
        else:
            assert type(after[name]) is type(old)


class ClippedNorm(nn.BatchNorm2d):
    """A batch norm with a forward pass of its own."""

    def forward(self, x):
        return super().forward(x).clamp(-3, 3)


def test_a_batch_norm_that_the_conversion_would_change_is_refused():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), ClippedNorm(4), nn.BatchNorm2d(4))
    with pytest.raises(UserError, match=r"recipe\.sync_bn: layers of the class ClippedNorm"):
        synchronise_batch_norm(model)
    assert type(model[2]) is nn.BatchNorm2d
    without_averages = nn.Sequential(ClippedNorm(4, track_running_stats=False))
    with pytest.raises(UserError, match="ClippedNorm"):
        synchronise_batch_norm(without_averages)
    own_statistics = registry.build(
        ModelConfig(family="timm:test_efficientnet_evos"), 10, seed=0, resolution=32
    )
    synchronise_batch_norm(own_statistics)  # EvoNorm S has no statistics over the batch


def test_positions_are_not_shifted_or_scaled_at_random():
    rotary = RotaryEmbeddingCat(64, rescale_coords=2.0, shift_coords=0.5)
    shape = [4, 4]
    assert not torch.equal(rotary.get_embed(shape), rotary.get_embed(shape))
    switch_off_dropout(rotary)
    assert torch.equal(rotary.get_embed(shape), rotary.get_embed(shape))
    assert rotary.training


@pytest.mark.slow
@pytest.mark.parametrize(("name", "side"), DROPPING)
def test_a_model_of_timm_draws_nothing_in_training(name, side):
    model = registry.build(ModelConfig(family=f"timm:{name}"), 10, seed=0, resolution=side)
    images = torch.rand(2, 3, side, side)
    with torch.no_grad():
        assert torch.equal(model(images), model(images))
    for module in model.modules():
        assert getattr(module, "p", 0.0) == getattr(module, "drop_prob", 0.0) == 0.0
