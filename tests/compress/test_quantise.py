"""Quantised training: folding, masks, packed weights, sizes, resumption."""

import copy
import io
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from harness.compress import masks as pruning
from harness.compress.quantise_deployed import deployed, pack, quantised_size, unpack
from harness.compress.quantise_layers import (
    Quantisation,
    calibrate,
    fold,
    quantise,
    quantised_layers,
    survey,
    training_masks,
)
from harness.compress.quantise_ranges import (
    BITS,
    weight_integers,
)
from harness.errors import UserError
from harness.models import registry
from harness.models.counts import count
from harness.models.family import FAMILIES
from harness.schema import ModelConfig

SIDE = 32
DEPTHS = {"wide_resnet": 10, "cifar_resnet": 8}
QUICK = ("cifar_resnet", "wide_resnet", "cifar_vit")


def built(family="cifar_resnet", seed=0):
    info = FAMILIES.get(family)
    depth = DEPTHS.get(family, info.depths[0] if info.depths else None)
    width = 1 / info.width_steps if info.width_steps else 0.25
    config = ModelConfig(family=family, depth=depth, width=width)
    return registry.build(config, 10, seed=seed, resolution=SIDE)


def images(number, seed=0):
    return torch.randn(number, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))


def parent(family="cifar_resnet"):
    """Return a model whose batch norms are far from the identity."""
    model = built(family)
    generator = torch.Generator().manual_seed(5)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.5, generator=generator)
            module.bias.data.normal_(0.0, 0.2, generator=generator)
            module.running_mean.normal_(0.0, 0.2, generator=generator)
            module.running_var.uniform_(0.5, 2.0, generator=generator)
    return model.eval()


def quantised(family="cifar_resnet", ranges="learned", weights=4, activations=8, model=None):
    config = Quantisation(weights=weights, activations=activations, ranges=ranges)
    result = quantise(model or parent(family), images(2), config)
    calibrate(result, [images(8, seed=1), images(8, seed=2)])
    return result


def optimizer_of(model):
    return torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)


def train(model, optimizer, steps, masks=None):
    model.train()
    for step in steps:
        loss = F.cross_entropy(model(images(8, seed=100 + step)), torch.arange(8))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if masks:
            pruning.apply_masks(model, masks)
    return loss.item()


def assert_same_state(one, other):
    one, other = one.state_dict(), other.state_dict()
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


# --- folding, and what is quantised ---


SHIPPED = [
    pytest.param(name, marks=() if name in QUICK else (pytest.mark.slow,))
    for name in FAMILIES.items
]


@pytest.mark.parametrize("family", SHIPPED)
def test_folding_does_not_change_what_a_model_returns(family):
    model = parent(family)
    found = survey(model, images(2))
    folded = copy.deepcopy(model)
    fold(folded, found.norms)
    with torch.no_grad():
        difference = (folded(images(4)) - model(images(4))).abs().max()
        assert difference < 1e-4 * max(1.0, model(images(4)).abs().max())
    if family in ("cifar_resnet", "resnet", "mobilenetv2", "cifar_mobilenetv2"):
        assert not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in folded.modules())


@pytest.mark.parametrize("family", SHIPPED)
def test_every_convolution_and_linear_layer_of_a_family_is_quantised(family):
    model = parent(family)
    found = survey(model, images(2))
    weights = {n for n, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}
    assert set(found.layers) == weights
    assert all("neither" in reason for reason in found.unquantised.values())
    layers = quantised_layers(quantised(family))
    bits = [(m.weight_range.bits, m.input.bits) for m in layers.values()]
    assert sorted(bits) == sorted([(8, 8)] * 2 + [(4, 8)] * (len(weights) - 2))
    roles = {"classifier": FAMILIES.get(family).classifier, "conv": FAMILIES.get(family).first_conv}
    assert all(layers[name].weight_range.bits == 8 for name in roles.values())


@pytest.mark.parametrize("ranges", ["learned", "average"])
@pytest.mark.parametrize("family", SHIPPED)
def test_the_deployed_network_returns_what_the_trained_one_does(family, ranges):
    model = quantised(family, ranges)
    train(model, optimizer_of(model), range(2))
    assert all(p.grad is not None for p in model.parameters())  # DDP needs all gradients
    small = deployed(model)
    with torch.no_grad():
        assert (small(images(4)) - model.eval()(images(4))).abs().max() <= 1e-5
    read = deployed(quantised(family, ranges))
    buffer = io.BytesIO()
    torch.save(small.state_dict(), buffer)
    read.load_state_dict(torch.load(io.BytesIO(buffer.getvalue()), weights_only=True))
    with torch.no_grad():
        assert torch.equal(read(images(4)), small(images(4)))


class Odd(nn.Module):
    """Layers that cannot be quantised, beside one that can."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3)
        self.unused = nn.Linear(4, 4)
        self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 4)
        self.two.weight = self.one.weight
        self.attention = nn.MultiheadAttention(4, 1)
        self.line = nn.Conv1d(4, 4, 1)

    def forward(self, x):
        x = self.two(self.one(self.first(x).mean((2, 3))))
        return self.line(self.attention(x, x, x)[0][:, :, None])[:, :, 0]


def test_weights_that_are_not_quantised_are_listed_with_the_reason():
    found = survey(Odd(), images(2))
    assert list(found.layers) == ["first"]
    reasons = found.unquantised
    assert "does not call" in reasons["unused.weight"]
    assert "share" in reasons["one.weight"]
    assert "share" in reasons["two.weight"]
    assert "does not call" in reasons["attention.out_proj.weight"]
    assert "neither" in reasons["line.weight"]
    assert "neither" in reasons["attention.in_proj_weight"]


def test_a_norm_is_not_folded_if_something_else_takes_the_output_of_the_layer_too():
    class Branch(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

        def forward(self, x):
            x = self.conv(x)
            return self.norm(x) + x

    assert survey(Branch(), images(2)).norms == {}


def test_a_norm_of_an_earlier_tensor_that_has_the_id_of_an_output_is_not_folded():
    """An id is given again when a tensor is freed; here the tensor itself is written again."""

    class IntoItsBuffer(nn.Conv2d):
        def forward(self, x):
            return self.buffer.copy_(super().forward(x))

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.conv = nn.BatchNorm2d(3), IntoItsBuffer(3, 3, 1)

        def forward(self, x):
            self.conv.buffer = x + 1
            return self.conv(self.norm(self.conv.buffer)) + 1

    assert survey(Model(), torch.zeros(2, 3, 4, 4)).norms == {}


def test_bits_that_are_not_offered_and_models_without_layers_are_refused():
    with pytest.raises(UserError, match=r"weights: 5 bits are not offered; choose one of 2, 3, 4"):
        Quantisation(weights=5)
    with pytest.raises(UserError, match="no layer of this model can be quantised"):
        quantise(nn.Sequential(nn.Conv1d(3, 4, 1)), torch.zeros(2, 3, 8), Quantisation(weights=4))


# --- masks, sizes, packing ---


@pytest.mark.parametrize("ranges", ["learned", "average"])
def test_pruned_weights_stay_exactly_zero(ranges):
    model = parent()
    names = pruning.prunable(model, ["fc.weight"], {})
    masks = pruning.magnitude_masks(model, 0.8, names)
    pruning.apply_masks(model, masks)
    network = quantised(ranges=ranges, weights=3, model=model)
    renamed = training_masks(masks)
    train(network, optimizer_of(network), range(3), renamed)
    small = deployed(network)
    for name, mask in masks.items():
        layer = name.removesuffix(".weight")
        assert not network.get_submodule(layer).weight[~mask].any()
        assert not small.get_submodule(layer).weight[~mask].any()
        assert network.get_submodule(layer).weight[mask].any()


@pytest.mark.parametrize("bits", BITS)
def test_packed_integers_take_their_bits_and_come_back_equal(bits):
    low, high = weight_integers(bits)
    generator = torch.Generator().manual_seed(bits)
    shape = torch.Size([5, 3, 3, 3])
    integers = torch.randint(low, high + 1, shape, generator=generator).to(torch.int8)
    packed = pack(integers, bits)
    assert packed.numel() == math.ceil(135 * bits / 8)
    assert torch.equal(unpack(packed, bits, shape), integers)
    with pytest.raises(ValueError, match="do not hold"):
        unpack(packed[1:], bits, shape)


def test_sizes_of_a_small_network_are_those_counted_by_hand():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 8, 3),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10),
    ).eval()  # fmt: skip
    network = quantise(model, torch.zeros(1, 3, 8, 8), Quantisation(weights=4, activations=6))
    macs = count(model, 8).macs_nonzero
    assert macs == 108 * 36 + 288 * 16 + 80
    size = quantised_size(network, macs)
    floats = (4 + 8 + 10) + 3 * 2 + (4 + 8 + 10)  # scales, inputs' ranges, biases
    assert size.bytes_deployed == 108 + 288 // 2 + 80 + 4 * floats
    assert size.bitops == (108 * 36 + 80) * 64 + 288 * 16 * 24
    mask = torch.zeros(8, 4, 3, 3, dtype=torch.bool)
    mask.view(-1)[:3] = True
    pruned = quantised_size(network, macs - 285 * 16, {"3.weight": mask})
    stored = math.ceil(3 * (4 + 9) / 8)  # indices of 9 bits are cheaper than a bitmap of 288
    assert pruned.bytes_deployed == 108 + stored + 80 + 4 * floats
    assert pruned.bitops == (108 * 36 + 80) * 64 + 3 * 16 * 24
    mask.view(-1)[:144] = True
    half = quantised_size(network, macs - 144 * 16, {"3.weight": mask})
    assert half.bytes_deployed == 108 + (144 * 4 + 288) // 8 + 80 + 4 * floats


# --- determinism, resumption, calibration ---


@pytest.mark.parametrize("ranges", ["learned", "average"])
def test_training_resumed_from_its_state_ends_in_the_same_bits(ranges):
    whole = quantised(ranges=ranges)
    optimizer = optimizer_of(whole)
    train(whole, optimizer, range(3))
    buffer = io.BytesIO()
    torch.save({"model": whole.state_dict(), "optimizer": optimizer.state_dict()}, buffer)
    loss = train(whole, optimizer, range(3, 6))
    state = torch.load(io.BytesIO(buffer.getvalue()), weights_only=True)
    config = Quantisation(weights=4, ranges=ranges)
    resumed = quantise(built(seed=9), images(2, seed=9), config)  # its own ranges are all replaced
    optimizer = optimizer_of(resumed)
    resumed.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    assert train(resumed, optimizer, range(3, 6)) == loss
    assert_same_state(whole, resumed)


@pytest.mark.parametrize("ranges", ["learned", "average"])
def test_two_trainings_end_in_the_same_bits(ranges):
    networks = [quantised(ranges=ranges, weights=2) for _ in range(2)]
    losses = [train(network, optimizer_of(network), range(3)) for network in networks]
    assert losses[0] == losses[1]
    assert_same_state(*networks)


@pytest.mark.parametrize("ranges", ["learned", "average"])
def test_calibration_without_training_brings_8_bits_closer_than_4_and_4_than_2(ranges):
    model = parent()
    with torch.no_grad():
        outputs = model(images(16))
        errors = [
            (quantised(ranges=ranges, weights=bits, model=model).eval()(images(16)) - outputs)
            .pow(2).mean().item()
            for bits in (8, 4, 2)
        ]  # fmt: skip
    assert errors[0] < errors[1] < errors[2]


def test_calibration_needs_images_and_leaves_the_modes_as_they_were():
    network = quantise(parent(), images(2), Quantisation(weights=4)).train()
    with pytest.raises(ValueError, match="no image"):
        calibrate(network, [])
    calibrate(network, [images(4)])
    assert all(module.training for module in network.modules())
