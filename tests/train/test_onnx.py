"""onnxruntime gives torch's logits for every family, and for pruned and fused networks."""

import json

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from harness.compress import masks as pruning
from harness.compress.surplus import make_graph
from harness.deploy.onnx_file import write_onnx
from harness.errors import UserError
from harness.models import registry
from harness.schema import ModelConfig, StageSurplus


def small(name):
    """Return a small network of a family, with lively batch-norm statistics, and its image size."""
    family = registry.find_family(name)
    depth = family.depths[0] if family.depths else None
    width = 2 / family.width_steps if family.width_steps else 0.25
    side = max(family.min_resolution, 2 * (family.patch or 1), 16)
    model = registry.build(ModelConfig(family=name, depth=depth, width=width), 10, seed=0,
                           resolution=side)  # fmt: skip
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(generator=generator)
            module.running_var.uniform_(0.5, 2.0, generator=generator)
    return model.eval(), side


@torch.no_grad()
def largest_difference(folder, model, side, count):
    images = torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(count))
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    (logits,) = session.run(["logits"], {"images": images.numpy()})
    return float(np.abs(logits - model(images).numpy()).max())


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(registry.FAMILIES.names()))
def test_every_family_that_ships(tmp_path, name):
    model, side = small(name)
    facts = write_onnx(tmp_path, model, 3, side)
    json.dumps(facts)
    assert facts["largest_difference"] <= 1e-4
    assert largest_difference(tmp_path, model, side, 5) <= 1e-4


@pytest.mark.slow
def test_zeros_of_masks_are_zeros_in_the_file(tmp_path):
    model, side = small("cifar_resnet")
    names = [name for name, _ in model.named_parameters() if name.endswith("conv2.weight")]
    masks = pruning.lowest({n: model.get_parameter(n).detach().abs() for n in names}, 0.7)
    pruning.apply_masks(model, masks)
    write_onnx(tmp_path, model, 3, side)
    assert largest_difference(tmp_path, model, side, 1) <= 1e-4
    stored = onnx.load(tmp_path / "model.onnx").graph.initializer
    zeros = sum(int((onnx.numpy_helper.to_array(t) == 0).sum()) for t in stored)
    assert zeros >= sum(int((~mask).sum()) for mask in masks.values())


@pytest.mark.slow
def test_a_fused_network_has_no_branches(tmp_path):
    model, side = small("cifar_resnet")
    plain = sum(p.numel() for p in model.parameters())
    surplus = StageSurplus(form="fuse", expand=2)
    graph = make_graph(surplus, model, lambda times: pytest.fail("no wide model"))
    deployed = graph.deployed().eval()
    write_onnx(tmp_path, deployed, 3, side)
    assert largest_difference(tmp_path, deployed, side, 4) <= 1e-4
    stored = onnx.load(tmp_path / "model.onnx").graph.initializer
    assert sum(int(np.prod(t.dims)) for t in stored) <= plain + 100


@pytest.mark.slow
def test_a_network_that_cannot_be_written_is_one_sentence(tmp_path):
    class Branching(nn.Module):
        def forward(self, images):
            return images.mean((2, 3)) if images.sum() > 0 else images.amax((2, 3))

    with pytest.raises(UserError, match=r"cannot be written as ONNX .*onnx=false") as caught:
        write_onnx(tmp_path, Branching().eval(), 3, 8)
    assert "\n" not in str(caught.value)
