"""Masks: which weights are prunable, which are pruned, and how masks are saved."""

import io

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from harness.compress.masks import (
    achieved,
    apply_masks,
    magnitude_masks,
    mask_hash,
    pack,
    prunable,
    unpack,
)
from harness.errors import UserError
from harness.models.families.cifar_resnet import build

ROLES = {"classifier": ("fc",), "first_conv": ("conv1",)}


def model(seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build(8, 0.5, 10, 3)


def test_weights_of_convolutions_and_linear_layers_are_prunable_unless_they_are_protected():
    net = model()
    everything = prunable(net, (), ROLES)
    shapes = dict(net.named_parameters())
    assert all(shapes[name].ndim >= 2 for name in everything)
    assert {name for name, p in shapes.items() if p.ndim >= 2} == set(everything)
    assert set(everything) - set(prunable(net, ("classifier",), ROLES)) == {"fc.weight"}
    names = prunable(net, ("first_conv", "blocks.1.conv2.weight"), ROLES)
    assert set(everything) - set(names) == {"conv1.weight", "blocks.1.conv2.weight"}


def test_a_role_can_have_several_modules_and_layers_can_share_a_weight():
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4))
    net[1].weight = net[0].weight
    assert prunable(net, ("classifier",), {"classifier": ("2",)}) == ["0.weight"]
    assert prunable(net, ("classifier",), {"classifier": ("0", "1")}) == ["2.weight"]


def test_weights_that_no_gradient_reaches_are_not_prunable():
    net = model()
    net.conv1.weight.requires_grad_(False)
    assert "conv1.weight" not in prunable(net, (), ROLES)


def test_the_error_for_an_unknown_protected_name_has_the_nearest_name():
    with pytest.raises(UserError, match=r"'clasifier' .*\(did you mean 'classifier'\?"):
        prunable(model(), ("clasifier",), ROLES)
    with pytest.raises(UserError, match=r"\(did you mean 'blocks\.1\.conv2\.weight'\?"):
        prunable(model(), ("block.1.conv2.weight",), ROLES)


def test_protecting_everything_is_an_error():
    net = model()
    with pytest.raises(UserError, match="nothing to prune"):
        prunable(net, [name for name, _ in net.named_parameters()], ROLES)


@pytest.mark.parametrize("sparsity", [0.0, 0.2, 0.5, 0.36, 0.9, 0.99])
def test_masks_equal_those_of_torchs_global_pruning(sparsity):
    net, reference = model(), model()
    names = prunable(net, ("classifier",), ROLES)
    masks = magnitude_masks(net, sparsity, names)
    total = sum(mask.numel() for mask in masks.values())
    modules = [reference.get_submodule(name.removesuffix(".weight")) for name in names]
    prune.global_unstructured(
        [(module, "weight") for module in modules],
        pruning_method=prune.L1Unstructured,
        amount=round(sparsity * total),
    )
    for name, module in zip(names, modules, strict=True):
        assert torch.equal(masks[name], module.weight_mask.bool())
    assert sum(int((~mask).sum()) for mask in masks.values()) == round(sparsity * total)
    assert achieved(masks) == pytest.approx(sparsity, abs=1 / total)


def test_ties_are_pruned_in_order_and_never_too_many():
    net = nn.Sequential(nn.Linear(4, 2, bias=False), nn.Linear(2, 3, bias=False))
    for parameter in net.parameters():
        nn.init.constant_(parameter, -0.5)
    net[1].weight.data[0, 0] = 0.1
    masks = magnitude_masks(net, 0.5, ["0.weight", "1.weight"])
    assert masks["0.weight"].flatten().tolist() == [False] * 6 + [True] * 2
    assert masks["1.weight"].flatten().tolist() == [False] + [True] * 5


def test_pruned_weights_stay_pruned_whatever_their_values_are():
    net = model()
    names = prunable(net, ("classifier",), ROLES)
    previous = None
    for sparsity in (0.2, 0.36, 0.488, 0.9):
        masks = magnitude_masks(net, sparsity, names, previous)
        total = sum(mask.numel() for mask in masks.values())
        assert sum(int((~mask).sum()) for mask in masks.values()) == round(sparsity * total)
        if previous is not None:
            for name in names:
                assert not (masks[name] & ~previous[name]).any()
        with torch.no_grad():  # pruned weights become the largest ones
            for name in names:
                net.get_parameter(name)[~masks[name]] = 100.0
        previous = masks
    with pytest.raises(ValueError, match=r"already prune more than 0\.5"):
        magnitude_masks(net, 0.5, names, previous)
    with pytest.raises(ValueError, match="other weights"):
        magnitude_masks(net, 0.95, names[1:], previous)


def test_weights_in_half_precision_are_ranked_like_the_same_values_in_fp32():
    net = model()
    names = prunable(net, (), ROLES)
    half = model().bfloat16()
    rounded = model().bfloat16().float()
    for name, mask in magnitude_masks(half, 0.7, names).items():
        assert torch.equal(mask, magnitude_masks(rounded, 0.7, names)[name])


def test_applied_masks_set_pruned_weights_to_zero_and_change_nothing_else():
    net, before = model(), model()
    masks = magnitude_masks(net, 0.6, prunable(net, ("classifier",), ROLES))
    net.conv1.weight.data[~masks["conv1.weight"]] = float("nan")
    apply_masks(net, masks)
    for name, parameter in net.named_parameters():
        original = before.get_parameter(name)
        mask = masks.get(name, torch.ones_like(original, dtype=torch.bool))
        assert torch.equal(parameter, torch.where(mask, original, 0.0))


def test_packed_masks_survive_a_safe_file_at_an_eighth_of_the_size():
    net = model()
    masks = magnitude_masks(net, 0.6, prunable(net, (), ROLES))
    file = io.BytesIO()
    torch.save(pack(masks), file)
    file.seek(0)
    packed = torch.load(file, weights_only=True)
    again = unpack(packed, net)
    assert all(torch.equal(masks[name], again[name]) for name in masks)
    total = sum(mask.numel() for mask in masks.values())
    assert sum(mask["bits"].numel() for mask in packed.values()) <= total / 8 + len(masks)


def test_masks_of_another_model_are_refused():
    net = model()
    packed = pack(magnitude_masks(net, 0.6, prunable(net, (), ROLES)))
    with pytest.raises(UserError, match=r"'conv1\.weight' of shape \[8, 3, 3, 3\] does not"):
        unpack(packed, build(8, 1.0, 10, 3))
    with pytest.raises(UserError, match=r"'conv9\.weight' .* does not fit any parameter"):
        unpack({"conv9.weight": packed["conv1.weight"]}, net)
    packed["conv1.weight"]["bits"] = packed["conv1.weight"]["bits"][:-1]
    with pytest.raises(UserError, match=r"'conv1\.weight' is damaged"):
        unpack(packed, net)


def test_the_hash_depends_on_names_shapes_and_bits_and_not_on_the_order():
    net = model()
    names = prunable(net, (), ROLES)
    masks = magnitude_masks(net, 0.6, names)
    assert mask_hash(masks) == mask_hash(dict(reversed(masks.items())))
    assert mask_hash(masks) != mask_hash(magnitude_masks(net, 0.61, names))
    moved = masks | {"fc.weight": masks["fc.weight"].flip(0)}
    assert len({mask_hash(masks), mask_hash(moved)}) == 2
    renamed = {name.replace("fc", "head"): mask for name, mask in masks.items()}
    assert mask_hash(renamed) != mask_hash(masks)
    reshaped = masks | {"fc.weight": masks["fc.weight"].reshape(-1)}
    assert mask_hash(reshaped) != mask_hash(masks)
