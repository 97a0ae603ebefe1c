"""Families by name: their widths and depths, their initial weights, plug-ins, mistakes."""

import re
from pathlib import Path

import pytest
import torch

import harness.models
from harness import plugins
from harness.errors import UserError
from harness.models import registry, scale_channels
from harness.schema import ModelConfig

RESNET8 = ModelConfig(family="cifar_resnet", depth=8, width=0.5)


def flat_state(model):
    return torch.cat([value.flatten().float() for value in model.state_dict().values()])


def test_initial_weights_are_a_function_of_the_seed_alone():
    first = flat_state(registry.build(RESNET8, 10, seed=1))
    torch.rand(3)
    assert torch.equal(first, flat_state(registry.build(RESNET8, 10, seed=1)))
    assert not torch.equal(first, flat_state(registry.build(RESNET8, 10, seed=2)))


def test_building_does_not_change_the_global_generator():
    before = torch.get_rng_state()
    registry.build(RESNET8, 10, seed=1)
    assert torch.equal(before, torch.get_rng_state())


def test_convolutions_have_the_initial_variance_of_he_et_al():
    model = registry.build(ModelConfig(family="cifar_resnet", depth=8, width=4.0), 10, seed=0)
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d):
            fan_in = module.weight[0].numel()
            assert module.weight.std().item() == pytest.approx((2 / fan_in) ** 0.5, rel=0.05)


@pytest.mark.parametrize("depth", [8, 20, 32, 56])
def test_depth_counts_the_layers_with_weights(depth):
    model = registry.build(ModelConfig(family="cifar_resnet", depth=depth), 10, seed=0)
    layers = [m for m in model.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)]
    shortcuts = [m for m in layers if getattr(m, "kernel_size", None) == (1, 1)]
    assert len(layers) - len(shortcuts) == depth
    assert len(shortcuts) == 2


@pytest.mark.parametrize("resolution", [8, 28, 32])
def test_a_model_takes_the_resolutions_of_the_data_sets(resolution):
    model = registry.build(RESNET8, 7, in_channels=1, seed=0).eval()
    assert model(torch.zeros(2, 1, resolution, resolution)).shape == (2, 7)


@pytest.mark.parametrize(
    ("width", "channels"),
    [(1.0, (16, 32, 64)), (0.25, (4, 8, 16)), (0.3, (5, 10, 19)), (0.01, (1, 1, 1))],
)
def test_width_multiplies_the_channels(width, channels):
    assert tuple(scale_channels(base, width) for base in (16, 32, 64)) == channels
    model = registry.build(ModelConfig(family="cifar_resnet", depth=8, width=width), 10, seed=0)
    assert model.conv1.out_channels == channels[0]
    assert model.fc.in_features == channels[2]


def test_roles_name_modules_of_the_right_kind():
    roles = registry.roles(RESNET8)
    model = registry.build(RESNET8, 10, seed=0)
    (classifier,) = roles["classifier"]
    assert isinstance(model.get_submodule(classifier), torch.nn.Linear)
    first = next(m for m in model.modules() if isinstance(m, torch.nn.Conv2d))
    (first_conv,) = roles["first_conv"]
    assert model.get_submodule(first_conv) is first


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (ModelConfig(family="cifar_resent", depth=8), ("family", "did you mean 'cifar_resnet'?")),
        (ModelConfig(family="cifar_resnet", depth=18), ("depth", "18", "did you mean 20?")),
        (ModelConfig(family="cifar_resnet"), ("depth", "one of 8, 20, 32, 56")),
    ],
)
def test_a_mistake_in_a_config_is_explained_and_the_model_not_built(config, words):
    (problem,) = registry.check(config)
    assert all(word in problem for word in words), problem
    with pytest.raises(UserError, match="model"):
        registry.build(config, 10, seed=0)


@pytest.fixture
def plain_cnn(monkeypatch, tmp_path):
    """The example of `docs/models.md` as a plug-in file; it is unregistered after the test."""
    page = Path(harness.models.__file__).parents[2] / "docs" / "models.md"
    (source,) = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    path = tmp_path / "plain_cnn.py"
    path.write_text(source)
    monkeypatch.setenv(plugins.PLUGINS, str(path))
    yield path
    registry.FAMILIES.items.pop("plain_cnn", None)
    plugins._imported.pop(path, None)


@pytest.mark.usefixtures("plain_cnn")
def test_a_family_is_one_file():
    """What `docs/models.md` promises: its example runs as printed."""
    config = ModelConfig(family="plain_cnn", width=0.5)
    assert registry.check(config) == []
    (problem,) = registry.check(config.model_copy(update={"depth": 8}))
    assert "depth" in problem
    model = registry.build(config, 10, seed=0)
    assert model(torch.zeros(2, 3, 28, 28)).shape == (2, 10)
    (classifier,) = registry.roles(config)["classifier"]
    assert isinstance(model.get_submodule(classifier), torch.nn.Linear)


@pytest.mark.usefixtures("plain_cnn")
def test_a_misspelt_family_is_corrected_to_one_from_a_plug_in_file():
    (problem,) = registry.check(ModelConfig(family="plain_cn"))
    assert "did you mean 'plain_cnn'?" in problem


def test_a_plug_in_family_with_a_taken_name_is_refused(plain_cnn):
    source = plain_cnn.read_text()
    assert '"plain_cnn"' in source
    plain_cnn.write_text(source.replace('"plain_cnn"', '"cifar_resnet"'))
    with pytest.raises(UserError, match="there is a model family 'cifar_resnet' already"):
        registry.check(RESNET8)
