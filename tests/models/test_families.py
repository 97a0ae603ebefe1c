"""Every family at its published size, at other widths, and under masks."""

import itertools

import pytest
import torch
from torch import nn
from torchvision.models import get_model_weights

from harness.compress import masks as pruning
from harness.config import check_sections
from harness.errors import UserError
from harness.models import registry
from harness.models.counts import count
from harness.models.families import shufflenetv2
from harness.schema import ModelConfig, OptimizerConfig, TrialConfig
from harness.train.optim import make_optimizer


def built(family, depth=None, width=1.0, classes=10, resolution=32, seed=0):
    config = ModelConfig(family=family, depth=depth, width=width)
    assert registry.check(config, resolution) == []
    return registry.build(config, classes, seed=seed, resolution=resolution)


def is_layer(module):
    return isinstance(module, nn.Conv2d | nn.Linear)


# family, depth, width, name of the same network in torchvision, resolution. torchvision's records
# of pretrained weights contain the parameters and the multiply-adds (10^9, three decimals, there
# called GFLOPS)
TORCHVISION = [
    ("resnet", 18, 1.0, "resnet18", 224),
    ("resnet", 34, 1.0, "resnet34", 224),
    ("resnet", 50, 1.0, "resnet50", 224),
    ("mobilenetv2", None, 1.0, "mobilenet_v2", 224),
    ("mobilenetv3_large", None, 1.0, "mobilenet_v3_large", 224),
    ("mobilenetv3_small", None, 1.0, "mobilenet_v3_small", 224),
    ("efficientnet", 16, 1.0, "efficientnet_b0", 224),
    ("efficientnet", 23, 1.0, "efficientnet_b1", 240),
    ("efficientnet", 23, 1.1, "efficientnet_b2", 288),
    ("shufflenetv2", None, 0.5, "shufflenet_v2_x0_5", 224),
    ("shufflenetv2", None, 1.0, "shufflenet_v2_x1_0", 224),
    ("shufflenetv2", None, 1.5, "shufflenet_v2_x1_5", 224),
    ("shufflenetv2", None, 2.0, "shufflenet_v2_x2_0", 224),
    ("convnext", 18, 1.0, "convnext_tiny", 224),
    ("convnext", 36, 4 / 3, "convnext_base", 224),
    ("efficientnet", 32, 1.4, "efficientnet_b4", 380),
    ("resnet", 101, 1.0, "resnet101", 224),
    ("resnet", 152, 1.0, "resnet152", 224),
    ("vit", 12, 2.0, "vit_b_16", 224),
]


@pytest.fixture
def zero_weights(monkeypatch):
    """Make initial weights zero, because drawing those of a large network takes half of a test."""
    for name in ("uniform_", "normal_", "erfinv_"):
        monkeypatch.setattr(torch.Tensor, name, lambda tensor, *_, **__: tensor.detach().zero_())


@pytest.mark.slow
@pytest.mark.usefixtures("zero_weights")
@pytest.mark.parametrize(("family", "depth", "width", "name", "resolution"), TORCHVISION)
def test_sizes_are_those_that_torchvision_publishes(family, depth, width, name, resolution):
    record = next(iter(get_model_weights(name))).meta
    counts = count(built(family, depth, width, 1000, resolution), resolution)
    assert counts.params_total == record["num_params"]
    assert counts.macs_dense / 1e9 == pytest.approx(record["_ops"], abs=6e-4)


# family, depth, width, resolution, classes, then parameters and multiply-adds in millions, each as
# published and followed by its rounding error
PUBLISHED = [
    # Zagoruyko and Komodakis 2016, tables 4 and 5
    ("wide_resnet", 40, 1.0, 32, 10, 0.6, 0.05, None, None),
    ("wide_resnet", 40, 2.0, 32, 10, 2.2, 0.05, None, None),
    ("wide_resnet", 28, 10.0, 32, 10, 36.5, 0.05, None, None),
    # timm's model cards of vit_tiny_patch16_224 and vit_small_patch16_224. Their multiply-adds do
    # not include attention; those of ViT-B/16 are checked above
    ("vit", 12, 0.5, 224, 1000, 5.7, 0.05, None, None),
    ("vit", 12, 1.0, 224, 1000, 22.1, 0.05, None, None),
    # the documentation of tf.keras.applications.mobilenet_v2, whose classifiers have 1001 outputs
    ("mobilenetv2", None, 0.75, 224, 1001, 2.61, 0.04, 209, 1.0),
    ("mobilenetv2", None, 0.5, 224, 1001, 1.95, 0.03, 97, 1.0),
    ("mobilenetv2", None, 1.4, 224, 1001, 6.06, 0.06, 582, 1.0),
]


@pytest.mark.slow
@pytest.mark.parametrize(
    (
        "family", "depth", "width", "resolution", "classes",
        "params", "params_rounding", "macs", "macs_rounding",
    ),
    PUBLISHED,
)  # fmt: skip
def test_sizes_are_the_published_ones(
    family, depth, width, resolution, classes, params, params_rounding, macs, macs_rounding
):
    counts = count(built(family, depth, width, classes, resolution), resolution)
    assert counts.params_total / 1e6 == pytest.approx(params, abs=params_rounding)
    if macs is not None:
        assert counts.macs_dense / 1e6 == pytest.approx(macs, abs=macs_rounding)


@pytest.mark.parametrize(
    ("family", "depth", "width", "params", "millions"),
    [
        ("cifar_mobilenetv2", None, 1.0, 2_236_682, 88),
        ("cifar_shufflenetv2", None, 1.0, 1_263_854, 45),
        ("wide_resnet", 28, 10.0, 36_479_194, 5243),
    ],
)
def test_sizes_at_32_pixels_are_those_in_the_docstrings(family, depth, width, params, millions):
    counts = count(built(family, depth, width), 32)
    assert counts.params_total == params
    assert round(counts.macs_dense / 1e6) == millions


def attention_macs(depth, tokens, channels):
    """Return the multiply-adds of two products: queries and keys, attention weights and values."""
    return depth * 2 * tokens**2 * channels


def test_vit_lite_has_the_published_size():
    """Compact-Transformers' README: ViT-Lite-7/4 has 3.717M parameters and 0.239G multiply-adds.

    The README counts the multiply-adds of layers only, without the products of attention.
    """
    counts = count(built("cifar_vit", 7), 32)
    assert round(counts.params_total / 1e6, 3) == 3.717
    layers = counts.macs_dense - attention_macs(7, 65, 256)
    assert round(layers / 1e9, 3) == 0.239
    assert round(count(built("cifar_vit", 6), 32).params_total / 1e6, 3) == 3.191


def test_resnet18_with_a_stem_for_small_images_has_the_published_size():
    """The numbers are those of the ResNet-18 in kuangliu's pytorch-cifar."""
    counts = count(built("cifar_stem_resnet", 18), 32)
    assert counts.params_total == 11_173_962
    assert round(counts.macs_dense / 1e9, 2) == 0.56


@pytest.mark.parametrize("family", ["mobilenetv2", "shufflenetv2"])
def test_networks_for_small_images_differ_in_strides_only(family):
    large, small = built(family), built(f"cifar_{family}")
    shapes = {name: value.shape for name, value in large.state_dict().items()}
    assert shapes == {name: value.shape for name, value in small.state_dict().items()}
    last = "blocks.6" if family == "mobilenetv2" else "stage4"
    sides = []
    for model in (large, small):
        model.get_submodule(last).register_forward_hook(
            lambda module, _, out: sides.append(out.shape[-1])
        )
        model.eval()(torch.zeros(1, 3, 32, 32))
    assert sides == [1, 4]  # total strides of 32 and of 8


# family, depth, widths in rising order, resolution
WIDTHS = [
    ("cifar_resnet", 8, (0.5, 1.0, 2.0), 32),
    ("wide_resnet", 10, (0.5, 1.0, 2.0), 32),
    ("cifar_stem_resnet", 18, (0.25, 0.5, 1.0), 28),
    ("cifar_mobilenetv2", None, (0.35, 0.5, 1.0), 28),
    ("cifar_shufflenetv2", None, (0.25, 0.5, 1.0), 28),
    ("cifar_vit", 2, (0.25, 0.5, 1.0), 28),
    ("resnet", 18, (0.25, 0.5, 1.0), 64),
    ("resnet", 50, (0.125, 0.25, 1.0), 64),
    ("mobilenetv2", None, (0.35, 0.5, 1.0), 64),
    ("mobilenetv3_large", None, (0.5, 0.75, 1.0), 64),
    ("mobilenetv3_small", None, (0.35, 0.75, 1.0), 64),
    ("shufflenetv2", None, (0.25, 0.75, 1.0), 64),
    ("efficientnet", 16, (0.25, 0.5, 1.0), 64),
    ("convnext", 12, (0.25, 5 / 12, 1.0), 64),
    ("vit", 6, (1 / 6, 0.333, 1.0), 64),
    ("timm:regnety_002", None, (1.0,), 64),
    ("timm:vit_tiny_patch16_224", None, (1.0,), 64),
]
for _name in sorted({*registry.FAMILIES.names()} - {family for family, *_ in WIDTHS}):
    # a new family is tested without a row in WIDTHS
    _family = registry.FAMILIES.get(_name)
    _side = max(_family.min_resolution, 4 * (_family.patch or 16))
    WIDTHS.append((_name, (_family.depths or (None,))[0], (1.0, 2.0), _side))
NAMES = [f"{family}-{depth or ''}" for family, depth, *_ in WIDTHS]


@pytest.mark.slow
@pytest.mark.parametrize(("family", "depth", "widths", "resolution"), WIDTHS, ids=NAMES)
def test_width_makes_a_family_larger(family, depth, widths, resolution):
    sizes = []
    for width in widths:
        model = built(family, depth, width, 7, resolution)
        assert model.train()(torch.rand(2, 3, resolution, resolution)).shape == (2, 7)
        counts = count(model, resolution)
        sizes.append((counts.params_total, counts.macs_dense))
    assert sizes == sorted(set(sizes))
    assert all(a[1] < b[1] for a, b in itertools.pairwise(sizes))


@pytest.mark.slow
@pytest.mark.parametrize(("family", "depth", "widths", "resolution"), WIDTHS, ids=NAMES)
def test_initial_weights_are_a_function_of_the_seed(family, depth, widths, resolution):
    state = torch.get_rng_state()
    first = built(family, depth, widths[0], resolution=resolution, seed=1).state_dict()
    torch.rand(3)
    torch.set_rng_state(state)
    again = built(family, depth, widths[0], resolution=resolution, seed=1).state_dict()
    other = built(family, depth, widths[0], resolution=resolution, seed=2).state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    assert any(not torch.equal(value, other[name]) for name, value in first.items())


@pytest.mark.slow
@pytest.mark.parametrize(("family", "depth", "widths", "resolution"), WIDTHS, ids=NAMES)
def test_masks_prune_all_but_the_protected_layers(family, depth, widths, resolution):
    config = ModelConfig(family=family, depth=depth, width=widths[0])
    model = built(family, depth, widths[0], 7, resolution)
    roles = registry.roles(config)
    kept = [f"{module}.weight" for role in ("classifier", "first_conv") for module in roles[role]]
    classifier, first = (model.get_parameter(name) for name in kept)
    assert classifier.shape[0] == 7
    assert first.ndim == 4
    assert first.shape[1] == 3
    names = pruning.prunable(model, ["classifier", "first_conv"], roles)
    assert {*names, *kept} == {
        f"{name}.weight" for name, module in model.named_modules() if is_layer(module)
    }
    masks = pruning.magnitude_masks(model, 0.8, names)
    pruning.apply_masks(model, masks)
    assert torch.isfinite(model.eval()(torch.rand(1, 3, resolution, resolution))).all()
    dense, sparse = count(model, resolution), count(model, resolution, masks)
    prunable = sum(model.get_parameter(name).numel() for name in names)
    assert sparse.params_nonzero == dense.params_total - round(0.8 * prunable)
    removed = sum(int((model.get_parameter(name) == 0).sum()) for name in names)
    assert removed == round(0.8 * prunable)
    assert dense.macs_dense == sparse.macs_dense > sparse.macs_nonzero


@pytest.mark.parametrize(("family", "depth", "widths", "resolution"), WIDTHS, ids=NAMES)
def test_every_weight_of_a_family_learns(family, depth, widths, resolution):
    """Otherwise a share of the prunable weights would have no effect on the network."""
    model = built(family, depth, widths[0], 7, resolution).train()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1 and not name.endswith("bias"):
                parameter.fill_(1.0)  # a norm that starts at zero would stop gradients
    model(torch.rand(2, 3, resolution, resolution)).square().sum().backward()
    unreached = [name for name, p in model.named_parameters() if p.grad is None]
    assert unreached == []


def test_channels_are_multiples_of_eight():
    for family, depth in (("resnet", 18), ("mobilenetv2", None), ("convnext", 12)):
        for width in (0.3, 0.71):
            for module in built(family, depth, width, resolution=64).modules():
                if isinstance(module, nn.Conv2d):
                    assert module.out_channels % 8 == 0


def test_shufflenets_channels_are_interpolated_between_the_published_ones():
    assert shufflenetv2.channels(1.0) == [24, 116, 232, 464, 1024]
    assert shufflenetv2.channels(2.0) == [24, 244, 488, 976, 2048]
    widths = (0.25, 0.5, 0.75, 1.0, 1.25, 3.0, 4.0)
    first_stage = [shufflenetv2.channels(width)[1] for width in widths]
    assert first_stage == [24, 48, 82, 116, 146, 366, 488]


@pytest.mark.parametrize(
    ("family", "depth", "width", "resolution", "words"),
    [
        ("vit", 12, 1.0, 28, ("from 32 pixels up", "has 28", "cifar_vit")),
        ("vit", 12, 1.0, 72, ("patches of 16", "72")),
        ("vit", 12, 0.4, 224, ("multiple of 1/6", "did you mean 0.3333?")),
        ("cifar_vit", 7, 0.05, 32, ("multiple of 1/4", "did you mean 0.25?")),
        ("convnext", 18, 1.0, 28, ("from 32 pixels up",)),
        ("resnet", 20, 1.0, 224, ("did you mean 18?",)),
        ("mobilenetv2", 2, 1.0, 224, ("no depth to choose",)),
        (
            "timm:resnet51",
            None,
            1.0,
            224,
            ("timm has no model 'resnet51'", "did you mean 'resnet5"),
        ),
        ("timm:resnet50", None, 0.5, 224, ("width 1 only",)),
        ("timm:resnet50", 50, 1.0, 224, ("no depth to choose",)),
        ("resnet50", None, 1.0, 224, ("did you mean 'resnet'?", "timm:NAME")),
    ],
)
def test_a_model_that_a_family_does_not_have_is_refused(family, depth, width, resolution, words):
    config = ModelConfig(family=family, depth=depth, width=width)
    (problem,) = registry.check(config, resolution)
    assert problem.startswith("model.")
    assert all(word in problem for word in words), problem


def test_timms_names_are_read_without_importing_it():
    import timm

    assert set(timm.list_models()) <= registry.timm_names()


@pytest.mark.parametrize(
    ("name", "side"), [("vgg11", 8), ("inception_v3", 8), ("gcvit_xxtiny", 28)]
)
def test_images_that_a_timm_model_does_not_take_are_refused(name, side):
    config = ModelConfig(family=f"timm:{name}")
    with pytest.raises(UserError, match=rf"timm's {name} does not take images of {side} pixels"):
        registry.build(config, 10, seed=0, resolution=side)


def test_the_check_of_the_resolution_does_not_change_a_timm_model():
    """Building a timm model includes a forward pass, which must not change batch statistics."""
    model = registry.build(ModelConfig(family="timm:test_efficientnet"), 10, seed=0, resolution=32)
    batch_counts = [value for name, value in model.state_dict().items() if "num_batches" in name]
    assert batch_counts
    assert not any(batch_counts)
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize(
    ("family", "refused"),
    [("timm:vit_tiny_patch16_224", True), ("timm:resnet18", False), ("vit", True)],
)
def test_images_that_grow_are_refused_by_models_of_one_size(family, refused):
    dataset = {"name": "imagenet", "validation_size": 50_000}
    content = {
        "dataset": {**dataset, "resolution": 192, "start_resolution": 160},
        "model": {"family": family, "depth": 12 if family == "vit" else None},
        "augment": {},
        "recipe": {"epochs": 1, "batch_size": 8, "optimizer": {"lr": 0.1}},
    }
    mistakes = check_sections(dict(TrialConfig.model_validate(content)))
    assert [key for key, _ in mistakes] == ["dataset.start_resolution"] * refused


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("deit_tiny_distilled_patch16_224", {"head.weight", "head_dist.weight"}),
        ("levit_128s", {"head.linear.weight", "head_dist.linear.weight"}),
        ("repvgg_a0", {"head.fc.weight"}),
    ],
)
def test_all_classifiers_of_a_timm_model_are_protected(name, kept):
    config = ModelConfig(family=f"timm:{name}")
    with torch.device("meta"):
        model = registry.build(config, 10, seed=0, resolution=224)
    names = pruning.prunable(model, ["classifier"], registry.roles(config))
    assert set(pruning.prunable(model, [], {})) - set(names) == kept


def test_a_protected_role_that_a_timm_model_lacks_is_refused():
    """Otherwise the protection would have no effect, without a message."""
    config = ModelConfig(family="timm:qwen3_vit_88m_enc")
    assert "classifier" not in registry.roles(config)
    model = torch.nn.Sequential(torch.nn.Linear(4, 4))
    for roles in (registry.roles(config), {"classifier": ("1",)}):
        with pytest.raises(UserError, match="'classifier' is neither a role"):
            pruning.prunable(model, ["classifier"], roles)


def test_position_embeddings_follow_the_resolution():
    """A ViT has a position for each patch of the data set's images, and a class token.

    It takes other resolutions too.
    """
    model = built("vit", 6, 1 / 6, resolution=64).eval()
    assert model.pos_embed.shape[1] == 1 + 4 * 4
    assert model(torch.rand(2, 3, 48, 48)).shape == (2, 10)
    with pytest.raises(ValueError, match="resolution"):
        registry.build(ModelConfig(family="vit", depth=6), 10, seed=0)


def test_position_embeddings_and_class_tokens_are_not_decayed():
    model = built("cifar_vit", 2, 0.25)
    config = OptimizerConfig(name="adamw", lr=1e-3, weight_decay=0.1)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = {
        group["weight_decay"]: {names[id(parameter)] for parameter in group["params"]}
        for group in make_optimizer(model, config).param_groups
    }
    assert {"pos_embed", "cls_token", "norm.weight", "head.bias"} <= groups[0.0]
    assert groups[0.1] == {f"{n}.weight" for n, m in model.named_modules() if is_layer(m)}
