"""An exported folder holds the network of the result, to the bit, and loads back."""

import pytest
import torch
from safetensors.torch import load_file

from harness.deploy import folder as folders
from harness.deploy.onnx_file import write_onnx
from harness.errors import UserError
from harness.models import registry
from harness.store.identity import stage_id
from harness.store.store import Store
from harness.train import checkpoint

WIDE = {"model.width": 0.5}
CHANNEL = {"sparsity": 0.5, "method": "channel", "scope": "global", "protect": ["classifier"],
           "rewind": "learning_rate", "reestimate_batch_norm": True}  # fmt: skip


def exported(stages, tmp_path, config):
    """Export a finished stage; return the folder, its description, the stored weights."""
    stage = stage_id(config)
    store = Store(tmp_path / "store")
    target = store.folder(stage)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.symlink_to(stages.folder(config))
    module, masks = folders.read_network(store, stage, config)
    description = folders.describe(module, masks, config, stage, "0" * 16)
    out = tmp_path / "out"
    out.mkdir()
    folders.write(out, module, description, "# card\n")
    return out, description, checkpoint.read_final(stages.folder(config), stage)


def variants(stages):
    dense = stages.toy({**WIDE, "recipe.epochs": 1})
    short = {**WIDE, "recipe.epochs": 1}
    channel = stages.child(dense, changes=short).model_dump(mode="json")
    channel["prune"] = CHANNEL
    return {
        "dense": [dense],
        "masks": [dense, stages.child(dense, changes=short)],
        "channels": [dense, type(dense).model_validate(channel)],
        "fuse": [stages.toy({**short, "surplus": {"form": "fuse", "expand": 2}})],
        "slice": [stages.toy(
            {**short, "surplus": {"form": "slice", "widths": [1.5, 2.0], "share": 0.5}}
        )],
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["dense", "masks", "channels", "fuse", "slice"])
def test_a_loaded_network_gives_the_bits_of_the_stage(stages, tmp_path, kind):
    path = variants(stages)[kind]
    for config in path:
        stages.train(config)
    config = path[-1]
    out, description, saved = exported(stages, tmp_path, config)
    loaded = folders.load(out)
    weights = loaded.state_dict()
    assert checkpoint.weights_hash(weights) == checkpoint.weights_hash(saved["model"])
    assert description["weights_sha256"] == checkpoint.weights_hash(weights)
    module, _ = folders.read_network(Store(tmp_path / "store"), stage_id(config), config)
    images = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(loaded(images), module(images))
    assert not loaded.training
    # the small network only: no surplus part, no removed channel
    plain = registry.build(config.model, 10, seed=0, resolution=8)
    full = sum(p.numel() for p in plain.parameters())
    parameters = description["parameters"]
    is_smaller = parameters["total"] < full
    assert is_smaller == (kind == "channels")
    zeros = sum(int((p == 0).sum()) for p in loaded.parameters())
    if kind == "masks":
        assert zeros >= parameters["total"] - parameters["nonzero"] > 0.3 * full
    else:
        assert parameters["total"] == parameters["nonzero"]
    assert sorted(p.name for p in out.iterdir()) == ["README.md", "config.json",
                                                     "model.safetensors"]  # fmt: skip
    if kind == "channels":
        assert write_onnx(out, loaded, 3, 8)["largest_difference"] <= 1e-4


def test_a_mask_is_applied_to_weights_that_are_not_zero(stages, tmp_path):
    config = stages.toy()
    stage, store = stage_id(config), Store(tmp_path)
    model = registry.build(config.model, 10, seed=0, resolution=8)
    name, weight = next((n, p) for n, p in model.named_parameters() if n == "conv1.weight")
    from harness.compress import masks as pruning

    mask = torch.zeros_like(weight, dtype=torch.bool)
    mask[0] = True
    checkpoint.write_final(store.folder(stage), stage, model.state_dict(),
                           pruning.pack({name: mask}))  # fmt: skip
    module, _ = folders.read_network(store, stage, config)
    assert torch.equal(module.get_parameter(name)[1:], torch.zeros_like(weight[1:]))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda out: (out / "config.json").unlink(), "config.json is missing"),
        (lambda out: (out / "model.safetensors").unlink(), "is missing; name the folder of one"),
        (lambda out: (out / "config.json").write_text("{"), "is not valid JSON"),
        (lambda out: (out / "config.json").write_text('{"format": 2}'), "is not valid: format"),
        (lambda out: (out / "model.safetensors").write_bytes(b"x" * 99), "export it again"),
    ],
)
def test_a_folder_that_cannot_be_loaded_is_one_sentence(stages, tmp_path, change, sentence):
    config = stages.toy()
    stage, store = stage_id(config), Store(tmp_path / "store")
    model = registry.build(config.model, 10, seed=0, resolution=8)
    checkpoint.write_final(store.folder(stage), stage, model.state_dict(), None)
    module, masks = folders.read_network(store, stage, config)
    out = tmp_path / "out"
    out.mkdir()
    description = folders.describe(module, masks, config, stage, "0" * 16)
    folders.write(out, module, description, "")
    assert load_file(out / "model.safetensors").keys() == model.state_dict().keys()
    change(out)
    with pytest.raises(UserError, match=sentence):
        folders.load(out)
