"""Compression methods: how much they remove, what they remove, and what is left."""

import itertools
import re

import pytest
import torch

from harness import config
from harness.compress import masks as pruning
from harness.compress.channels import fit_shapes
from harness.compress.gradual import UPDATES, end_step, is_due, sparsity_at
from harness.compress.methods import METHODS, Request
from harness.errors import UserError
from harness.models import registry
from harness.models.counts import count
from harness.models.family import FAMILIES
from harness.paths import ROOT
from harness.schema import ModelConfig
from harness.sweep.plan import make_plan

CHANNEL_FAMILIES = [n for n, family in FAMILIES.items.items() if family.removable_channels]
DEPTHS = {"cifar_resnet": 8, "wide_resnet": 10, "cifar_stem_resnet": 18, "resnet": 18}
DEPTHS["efficientnet"] = 16


def build(width=0.5, family="cifar_resnet"):
    size = ModelConfig(family=family, depth=DEPTHS.get(family), width=width)
    model = registry.build(size, 10, seed=0, resolution=32)
    return model, pruning.prunable(model, ("classifier",), registry.roles(size))


def compress(method, model, request):
    return METHODS.get(method).compress(model, request)


def pruned_counts(masks):
    return {name: int((~mask).sum()) for name, mask in masks.items()}


def test_scope_layer_prunes_the_same_share_of_each_layer_and_pruned_weights_stay_pruned():
    model, names = build()
    previous = None
    for sparsity in (0.5, 0.75, 0.9):
        masks = compress("magnitude", model, Request(sparsity, names, previous, scope="layer"))
        for name in names:
            weight = model.get_parameter(name)
            assert pruned_counts(masks)[name] == round(sparsity * weight.numel())
            kept = weight[masks[name]].abs().min()
            assert weight[~masks[name]].abs().max() <= kept
            assert previous is None or not (masks[name] & ~previous[name]).any()
        previous = masks


def test_random_pruning_depends_on_the_seed_and_not_on_the_weights():
    model, names = build()
    first = compress("random", model, Request(0.5, names, seed=1))
    total = sum(mask.numel() for mask in first.values())
    assert sum(pruned_counts(first).values()) == round(0.5 * total)
    further = compress("random", model, Request(0.8, names, previous=first, seed=1))
    assert all(not (further[name] & ~first[name]).any() for name in names)
    for parameter in model.parameters():
        parameter.data.zero_()
    again = compress("random", model, Request(0.5, names, seed=1))
    assert pruning.mask_hash(again) == pruning.mask_hash(first)
    other = compress("random", model, Request(0.5, names, seed=2))
    assert pruning.mask_hash(other) != pruning.mask_hash(first)


def test_nm_prunes_the_smallest_weights_of_every_four_input_channels():
    model, names = build()
    suited = METHODS.get("nm").suited
    assert suited(model, names, 32) == [name for name in names if name != "conv1.weight"]
    names = suited(model, names, 32)
    previous = None
    for sparsity, zeros in ((0.5, 2), (0.75, 3)):
        masks = compress("nm", model, Request(sparsity, names, previous))
        for name, mask in masks.items():
            weight = model.get_parameter(name).detach().abs()
            for channels in range(0, weight.shape[1], 4):
                group, kept = weight[:, channels : channels + 4], mask[:, channels : channels + 4]
                assert ((~kept).sum(1) == zeros).all()
                largest_pruned = torch.where(kept, 0.0, group).amax(1)
                assert (largest_pruned <= torch.where(kept, group, 9.0).amin(1)).all()
            assert previous is None or not (mask & ~previous[name]).any()
        previous = masks
    narrow_model, its_names = build(0.04)
    with pytest.raises(UserError, match="multiple of 4"):
        suited(narrow_model, its_names, 32)


# At half the width its stem still has 16 channels, but its first block has 8.
REFUSED = {("mobilenetv3_large", 1.0, (0.5,))}


def narrowed(family, width, shares):
    """Return a model whose channels were removed in steps, and the plain model of that width."""
    model, names = build(width, family)
    for share in shares:
        assert narrow(model, names, share, width, family) is None
    return model, build(width * (1 - share), family)[0]


def narrow(model, names, share, width, family="cifar_resnet"):
    """Remove `share` of the channels of a model that was built at `width`."""

    def plain(times):
        return build(width * times, family)[0]

    request = Request(share, names, scope="layer", resolution=32, build=plain)
    return compress("channel", model, request)


# A second width, at which other numbers of channels are rounded. For the large ResNet-18 it is 0.5,
# because it would have 45 million weights at width 2.
OTHER_WIDTH = dict.fromkeys(CHANNEL_FAMILIES, 2.0) | {"resnet": 0.5, "cifar_stem_resnet": 0.5}
NARROWED = [
    (family, *case)
    for family, other in OTHER_WIDTH.items()
    for case in ((1.0, (0.2, 0.25)), (other, (0.3,)), (1.0, (0.5,)))
]


@pytest.mark.slow
@pytest.mark.parametrize(("family", "width", "shares"), NARROWED)
def test_a_narrowed_model_has_the_counts_of_the_plain_model_of_that_width(family, width, shares):
    if (family, width, shares) in REFUSED or (family, width) == ("wide_resnet", 1.0):
        with pytest.raises(UserError, match="layers that share them differ in the plain model"):
            narrowed(family, width, shares)
        return
    model, plain = narrowed(family, width, shares)
    assert count(model, 32) == count(plain, 32)


def test_a_projection_that_the_plain_model_lacks_is_refused():
    with pytest.raises(UserError, match=r"shortcut.* absent"):
        narrowed("wide_resnet", 2.0, (0.5,))


@pytest.mark.slow
@pytest.mark.parametrize("family", CHANNEL_FAMILIES)
def test_a_narrowed_model_works_and_a_new_model_can_load_its_weights(family):
    model, names = build(0.5, family)
    before = count(model, 32)
    narrow(model, names, 0.5, 0.5, family)
    assert count(model, 32).macs_dense < 0.6 * before.macs_dense
    again = build(0.5, family)[0]
    fit_shapes(again, model.state_dict())
    again.load_state_dict(model.state_dict())
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(again.eval()(images), model.eval()(images))
    assert again.train()(images).shape == (2, 10)


def test_channels_of_the_smallest_norm_are_removed_and_protected_layers_keep_theirs():
    model, names = build(1.0)
    inner = model.blocks[0]
    with torch.no_grad():
        for layer in (inner.conv1.weight, inner.bn1.weight, inner.bn1.bias):
            layer[3] = 0.0
        inner.conv2.weight[:, 3] = 0.0
    kept = inner.conv1.weight.detach().clone()
    names = [name for name in names if name != "blocks.1.conv1.weight"]
    narrow(model, names, 1 / 16, 1.0)
    assert inner.conv1.weight.shape[0] == 15
    rows = [row for row in range(16) if row != 3]
    inputs = inner.conv1.weight.shape[1]
    assert inputs == 15  # the block's input lost a channel, too
    norms = kept[rows].flatten(2).norm(dim=2)
    for row, left in zip(norms, inner.conv1.weight.detach().flatten(2).norm(dim=2), strict=True):
        assert all(torch.isclose(row, value).any() for value in left)
    assert model.blocks[1].conv1.weight.shape[0] == 32


def test_gradual_pruning_follows_the_cubic_curve_and_reaches_its_target_exactly():
    end = end_step(1000, 0.75)
    assert end == 750
    path = [sparsity_at(step, 0.9, end) for step in range(1001)]
    assert path[0] == 0.0
    assert path[375] == pytest.approx(0.9 * (1 - 0.5**3))
    assert all(a <= b for a, b in itertools.pairwise(path))
    assert set(path[750:]) == {0.9}
    due = [step for step in range(1001) if is_due(step, end)]
    assert due[-1] == 750
    assert UPDATES <= len(due) <= UPDATES + 10
    assert end_step(1, 0.1) == 1
    assert end_step(1000, 1.0) == 999  # so that one step trains with the final masks


def test_a_method_is_one_file(add_plugin):
    """What `docs/compress.md` promises: its example runs as printed, from the grid to the masks."""
    page = (ROOT / "docs" / "compress.md").read_text()
    code, _ = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    words = ["grid=pruning_schedules", "compress.method=largest"]
    with pytest.raises(UserError, match=r"no method 'largest' \(valid: channel, .*magnitude, nm"):
        config.load(words)
    add_plugin("largest.py", code)
    stages = make_plan(config.load(words).grid).stages
    assert {stage.prune.method for stage in stages.values() if stage.prune} == {"largest"}
    model, names = build()
    previous = None
    for sparsity in (0.5, 0.75):
        previous = compress("largest", model, Request(sparsity, names, previous))
    weights = torch.cat([model.get_parameter(name).detach().abs().flatten() for name in names])
    kept = torch.cat([previous[name].flatten() for name in names])
    assert int(kept.sum()) == round(0.25 * len(kept))
    assert 0.0 < weights[kept].mean() < 0.5 * weights[~kept].mean()
