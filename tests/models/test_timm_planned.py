"""A model of timm can be pruned with its classifiers kept, or a launch refuses it."""

import importlib.util
import re
from pathlib import Path

import pytest
import torch

from harness.compress import layers
from harness.compress import masks as pruning
from harness.models import registry
from harness.schema import ModelConfig, StageConfig
from harness.sweep.check import depends_on_layers

pytestmark = pytest.mark.slow
TWO_CLASSIFIERS = (
    "deit_tiny_distilled_patch16_224", "levit_128s", "efficientformerv2_s0", "volo_d1_224",
)  # fmt: skip
NO_CLASSIFIER = (
    "deepseek_vit_412m_enc", "gemma4_vit_167m_enc", "mobilenetv5_300m_enc", "qwen3_vit_88m_enc",
)  # fmt: skip


def one_of_each_architecture():
    """Return the first model of each of timm's source files, and the models named above."""
    registered = re.compile(r"^@register_model\n(?:@.*\n)*def (\w+)", re.MULTILINE)
    folder = Path(importlib.util.find_spec("timm").origin).parent / "models"
    names = {*TWO_CLASSIFIERS, *NO_CLASSIFIER}
    for path in sorted(folder.glob("*.py")):
        names.update(sorted(registered.findall(path.read_text()))[:1])
    return sorted(names)


@pytest.mark.parametrize("name", one_of_each_architecture())
def test_a_model_is_pruned_except_its_classifiers_or_is_refused(name):
    from timm.models import get_pretrained_cfg

    config = ModelConfig(family=f"timm:{name}")
    side = get_pretrained_cfg(name).input_size[-1]
    stage = StageConfig.model_validate(
        {
            "seed": 0,
            "dataset": {"name": "imagenet", "validation_size": 10, "resolution": side},
            "model": config.model_dump(),
            "augment": {"policy": "none", "crop_padding": 0, "flip": False},
            "recipe": {"epochs": 1, "batch_size": 8, "optimizer": {"lr": 0.1}},
            "prune": {"sparsity": 0.5, "method": "magnitude", "scope": "global",
                      "protect": ["classifier"], "rewind": "learning_rate",
                      "reestimate_batch_norm": True},
        }
    )  # fmt: skip
    assert depends_on_layers(stage)
    misfits = layers.misfits([(stage, 2)])
    if name in NO_CLASSIFIER:
        assert misfits
    if misfits:
        assert name not in TWO_CLASSIFIERS
        assert misfits[0].partition(": ")[0] in ("model.family", "compress.sparsity")
        return
    with torch.device("meta"):
        model = registry.build(config, 1000, seed=0, resolution=side)
    names = pruning.prunable(model, ["classifier"], registry.roles(config))
    kept = set(pruning.prunable(model, [], {})) - set(names)
    assert {model.get_parameter(weight).shape[0] for weight in kept} == {1000}
