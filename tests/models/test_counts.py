"""Parameters and multiply-adds: published sizes, torch's own counter, and sums by hand."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from harness.models import registry
from harness.models.counts import Counts, count
from harness.models.families.cifar_resnet import build
from harness.schema import ModelConfig

# ResNet-20 with projection shortcuts, by the channels of its first stage: millions of parameters
# and of multiply-adds
WIDTHS = {
    4: (0.018, 2.6),
    8: (0.069, 10.3),
    16: (0.272, 40.8),
    24: (0.611, 91.5),
    32: (1.085, 162.4),
    48: (2.436, 364.7),
    64: (4.328, 647.7),
}
PUBLISHED = {20: 0.27, 32: 0.46, 56: 0.85}
"""He et al. 2016, table 6: millions of parameters by depth."""


@pytest.mark.parametrize("channels", WIDTHS)
def test_resnet20_has_the_published_sizes(channels):
    counts = count(build(20, channels / 16, 10, 3), 32)
    sizes = (round(counts.params_total / 1e6, 3), round(counts.macs_dense / 1e6, 1))
    assert sizes == WIDTHS[channels]


@pytest.mark.parametrize("depth", PUBLISHED)
def test_depths_have_the_published_sizes(depth):
    """The published networks have shortcuts without parameters; here two are projections."""
    total = count(build(depth, 1.0, 10, 3), 32).params_total
    shortcuts = 16 * 32 + 32 * 64 + 2 * (32 + 64)
    assert (total - shortcuts) / 1e6 == pytest.approx(PUBLISHED[depth], abs=0.005)


@pytest.mark.parametrize(
    ("depth", "width", "resolution"), [(8, 0.5, 28), (20, 0.3, 8), (32, 1, 32)]
)
def test_multiply_adds_are_half_of_torchs_flops(depth, width, resolution):
    model = build(depth, width, 10, 3).eval()
    with FlopCounterMode(display=False) as flops:
        model(torch.zeros(1, 3, resolution, resolution))
    assert count(model, resolution).macs_dense * 2 == flops.get_total_flops()


def test_attention_counts_as_torch_counts_its_plain_products():
    config = ModelConfig(family="cifar_vit", depth=2, width=0.25)
    model = registry.build(config, 10, seed=0, resolution=32).eval()
    plain, counter = sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False)
    with plain, counter as flops:
        model(torch.zeros(1, 3, 32, 32))
    assert count(model, 32).macs_dense * 2 == flops.get_total_flops()


def test_a_pruned_weight_reduces_the_count_by_its_own_multiply_adds():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2, padding=1, bias=False),  # 108 weights at 4 x 4 positions
        nn.BatchNorm2d(4),
        nn.Conv2d(4, 4, 3, groups=4),  # 36 weights at 2 x 2 positions, 4 biases
        nn.Flatten(),
        nn.Linear(16, 5),  # 80 weights, 5 biases
    )
    assert count(model, 8) == Counts(
        params_total=108 + 8 + 36 + 4 + 80 + 5,
        params_nonzero=241,
        params_prunable=108 + 36 + 80,
        macs_dense=108 * 16 + 36 * 4 + 80,
        macs_nonzero=108 * 16 + 36 * 4 + 80,
    )
    masks = {
        "0.weight": torch.ones(4, 3, 3, 3, dtype=torch.bool),
        "2.weight": torch.ones(4, 1, 3, 3, dtype=torch.bool),
    }
    masks["0.weight"][0] = False  # 27 weights
    masks["2.weight"][:, :, 0, 0] = False  # 4 weights
    assert count(model, 8, masks) == Counts(
        params_total=241,
        params_nonzero=241 - 31,
        params_prunable=108 + 36,
        macs_dense=108 * 16 + 36 * 4 + 80,
        macs_nonzero=81 * 16 + 32 * 4 + 80,
    )


def test_counting_does_not_change_the_model():
    model = build(8, 0.5, 10, 3).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    count(model, 32)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


class Attention(nn.Module):
    """Uses a layer's weight without calling the layer, as BEiT's attention does."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 4, stride=4)  # 384 weights at 2 x 2 positions
        self.qkv = nn.Linear(8, 24, bias=False)  # 192 weights at 4 positions
        self.fc = nn.Linear(8, 2)

    def forward(self, x):
        tokens = self.stem(x).flatten(2).transpose(1, 2)
        q, k, v = F.linear(tokens, self.qkv.weight).chunk(3, dim=-1)
        return self.fc(F.scaled_dot_product_attention(q, k, v).mean(1))


def test_products_of_attention_are_counted_and_not_reduced_by_pruning():
    model = Attention()
    layers = 384 * 4 + 192 * 4 + 16
    attention = 2 * 4 * 4 * 8
    mask = torch.ones(24, 8, dtype=torch.bool)
    mask[:12] = False
    counts = count(model, 8, {"qkv.weight": mask})
    assert counts.macs_dense == layers + attention
    assert counts.macs_nonzero == layers + attention - 96 * 4


class Operators(TorchDispatchMode):
    """Records the names of the operators that run."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.add(func.name())
        return func(*args, **(kwargs or {}))


def test_attention_is_counted_as_plain_products_and_not_as_a_fused_operator():
    """torch 2.11 has no formula for the fused operator of a CPU."""
    with Operators() as operators:
        F.scaled_dot_product_attention(*torch.zeros(3, 1, 2, 4, 8))
    assert any("scaled_dot_product" in name for name in operators.names)
    with Operators() as operators:
        count(Attention(), 8)
    assert "aten::bmm" in operators.names
    assert not any("scaled_dot_product" in name for name in operators.names)


def test_torchs_own_attention_layer_is_counted():
    """In its fast path, which it takes without gradients, only the first layer would be counted."""
    layer = nn.TransformerEncoderLayer(8, 2, dim_feedforward=16, batch_first=True)
    model = nn.Sequential(nn.Conv2d(3, 8, 4, stride=4), nn.Flatten(2), Swap(), layer)
    weights = 8 * 24 + 8 * 8 + 2 * 8 * 16
    assert count(model, 8).macs_dense == (384 + weights) * 4 + 2 * 4 * 4 * 8


class Swap(nn.Module):
    """[N, C, L] -> [N, L, C]."""

    def forward(self, x):
        return x.transpose(1, 2)


class Standardised(nn.Conv2d):
    """Subtracts the mean from its weight in each forward pass."""

    def forward(self, x):
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return F.conv2d(x, weight, None, self.stride, self.padding)


def test_weights_that_are_computed_in_each_call_are_counted():
    model = nn.Sequential(Standardised(3, 4, 3, padding=1, bias=False))
    mask = torch.zeros(4, 3, 3, 3, dtype=torch.bool)
    counts = count(model, 8, {"0.weight": mask})
    assert (counts.macs_dense, counts.macs_nonzero) == (108 * 64, 0)
