"""Only weights that the network applies as they are stored can be pruned."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from harness.compress import layers
from harness.errors import UserError
from harness.models import registry
from harness.models.counts import count, weights_applied_as_stored
from harness.schema import ModelConfig, PruneConfig, StageConfig

PRUNE = PruneConfig(
    method="magnitude",
    sparsity=0.5,
    scope="global",
    protect=("classifier",),
    rewind="learning_rate",
    reestimate_batch_norm=False,
)
STANDARDISED = ["test_nfnet", "nf_regnet_b0", "resnetv2_50x1_bit", "vit_tiny_r_s16_p8_224"]
PLAIN = [
    "test_byobnet", "test_efficientnet", "test_mambaout", "test_resnet", "test_vit4",
    "beit_base_patch16_224", "deit_tiny_distilled_patch16_224", "efficientnet_b1_pruned",
]  # fmt: skip


def on_meta(name):
    config = ModelConfig(family=f"timm:{name}")
    with torch.device("meta"):
        return config, registry.build(config, 10, seed=0, resolution=224)


@pytest.mark.parametrize("name", STANDARDISED)
def test_weights_that_are_standardised_in_each_forward_pass_are_refused(name):
    config, model = on_meta(name)
    with pytest.raises(UserError, match=r"compress\.sparsity: .* as they are stored"):
        layers.to_prune(PRUNE, config, model, 224)


@pytest.mark.parametrize("name", PLAIN)
def test_all_layers_of_other_models_can_be_pruned(name):
    config, model = on_meta(name)
    names = layers.to_prune(PRUNE, config, model, 224)
    weights = {
        f"{name}.weight"
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    }
    heads = {f"{module}.weight" for module in registry.roles(config)["classifier"]}
    assert set(names) == weights - heads


def test_layers_of_other_kinds_are_not_pruned():
    config, model = on_meta("tf_efficientnet_cc_b0_4e")
    names = layers.to_prune(PRUNE, config, model, 224)
    cond_conv = "blocks.4.0.conv_pw.weight"  # a CondConv mixes the weights of experts per image
    assert cond_conv in dict(model.named_parameters())
    assert cond_conv not in names


def test_a_weight_with_a_parametrization_is_not_applied_as_stored():
    def network():
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 5))

    plain, with_weight_norm = network(), network()
    parametrizations.weight_norm(with_weight_norm[0])
    assert weights_applied_as_stored(plain, 8) == {"0.weight", "2.weight"}
    assert weights_applied_as_stored(with_weight_norm, 8) == {"2.weight"}
    assert count(with_weight_norm, 8).macs_dense == count(plain, 8).macs_dense


class Attention(nn.Module):
    """torch's attention, which passes the weight of its last layer to a function."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(3, 1, batch_first=True)

    def forward(self, x):
        tokens = x.flatten(2).transpose(1, 2)
        return self.attention(tokens, tokens, tokens)[0]


def test_the_last_layer_of_torchs_attention_is_applied_as_stored():
    name = "attention.out_proj.weight"
    model = Attention()
    assert weights_applied_as_stored(model, 4) == {name}
    masks = {name: torch.zeros(3, 3, dtype=torch.bool)}
    counts = count(model, 4, masks)
    assert counts.macs_dense - counts.macs_nonzero == 9 * 16


def test_a_model_whose_pruned_weights_would_not_stay_zero_is_named_once():
    values = {
        "parent": "0" * 16,
        "seed": 0,
        "dataset": {"name": "digits", "validation_size": 300},
        "model": {"family": "timm:test_nfnet"},
        "augment": {"policy": "none", "crop_padding": 0, "flip": False},
        "recipe": {"epochs": 1, "batch_size": 8, "optimizer": {"lr": 0.1}},
        "prune": PRUNE.model_dump(),
    }
    (sentence,) = layers.misfits([(StageConfig.model_validate(values), 2)] * 2)
    assert sentence.startswith("compress.sparsity: ")
    assert sentence.endswith("(timm:test_nfnet of width 1)")
