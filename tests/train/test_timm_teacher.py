"""Teachers that take images of one size, or come from timm: looked at before anything is queued."""

import sys

import pytest
import torch

from harness import config
from harness.augment.batch_transform import BatchTransform
from harness.commands import preflight
from harness.data.catalog import CATALOG
from harness.errors import UserError
from harness.files import write_json
from harness.schema import DatasetConfig, StageConfig
from harness.store.identity import stage_id
from harness.sweep.teachers import misfit
from harness.train.teacher import load_teacher

IMAGENET = """defaults:
  - override /dataset: {dataset}
  - override /recipe: quick
dataset: {{validation_size: 100, resolution: {side}}}
model: {{depth: 8}}
teacher: {{name: {name}, {rest}}}
axes: {{seed: [0]}}
"""


def column(values):
    return torch.tensor(values)[:, None, None]


def test_a_model_of_timms_with_other_classes_is_refused(tmp_path, stages, make_code):
    import timm

    model = timm.create_model("resnet10t", num_classes=10)
    weights = tmp_path / "weights.pt"
    torch.save(model.state_dict(), weights)
    device = torch.device("cpu")
    ten, hundred = (DatasetConfig(name=f"cifar{n}", validation_size=100) for n in (10, 100))
    teacher = load_teacher(f"timm:resnet10t@{weights}", tmp_path, ten, device)
    assert teacher.logits(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    recorded = timm.models.get_pretrained_cfg("resnet10t")
    expected = {"mean": list(recorded.mean), "std": list(recorded.std)}
    assert teacher.normalisation() == expected
    images = torch.rand(2, 3, 32, 32)
    ours = BatchTransform(mean=CATALOG["cifar10"].mean, std=CATALOG["cifar10"].std)
    as_ours = (images - column(ours.mean)) / column(ours.std)
    as_timms = (images - column(recorded.mean)) / column(recorded.std)
    with torch.no_grad():
        assert torch.allclose(teacher.logits(as_ours, ours), model.eval()(as_timms), atol=1e-4)
    with pytest.raises(UserError, match="cannot be loaded"):
        load_teacher(f"timm:resnet10t@{weights}", tmp_path, hundred, device)
    torch.save({"fc.weight": make_code(tmp_path / "made")}, weights)  # it cannot run code
    with pytest.raises(UserError, match="other objects could run code") as caught:
        load_teacher(f"timm:resnet10t@{weights}", tmp_path, ten, device)
    assert "weights_only" not in str(caught.value)
    assert not (tmp_path / "made").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "side", "words", "message"),
    [
        ("vit_small_patch16_224", 192, [], "takes images of 224 pixels and imagenet has 192 here"),
        ("vit_small_patch16_224.augreg_in21k", 224, [], "have 21,843 classes"),
        ("vit_small_patch16_224.augreg_in21k_ft_in1k", 224, [], None),
        ("vit_small_patch16_224", 224, ["dataset.start_resolution=128"], "images of one size"),
        ("convnext_tiny.in12k", 192, [], "have 11,821 classes"),
        ("resnet50.a1_in1", 192, [], r"no weights resnet50\.a1_in1 .*did you mean 'resnet50\.a1"),
        ("resnet50.a1_in1k", 192, ["dataset.start_resolution=128"], None),
    ],
)
def test_a_teacher_of_timms_is_looked_up_before_anything_is_queued(
    tmp_path, name, side, words, message
):
    path = tmp_path / "grid.yaml"
    text = IMAGENET.format(dataset="imagenet", name=f"timm:{name}", rest="labels: soft", side=side)
    path.write_text(text.replace("model: {depth: 8}", "model: {family: resnet, depth: 18}"))
    words_of_grid = [f"grid={path}", f"store={tmp_path}/store", *words]
    if message is None:
        config.load(words_of_grid, trains=True)
        return
    with pytest.raises(UserError, match=message):
        config.load(words_of_grid, trains=True)


def test_what_could_not_be_looked_up_without_timm_is_said(tmp_path, monkeypatch):
    path = tmp_path / "grid.yaml"
    text = IMAGENET.format(dataset="imagenet", name="timm:vit_small_patch16_224", side=192,
                           rest="labels: soft")  # fmt: skip
    path.write_text(text.replace("model: {depth: 8}", "model: {family: resnet, depth: 18}"))
    monkeypatch.setitem(sys.modules, "timm", None)  # an import of it fails
    monkeypatch.setitem(sys.modules, "timm.models", None)
    launch = config.load([f"grid={path}", f"store={tmp_path}/store"], trains=True)
    (note,) = preflight.unchecked(launch)
    assert "timm:vit_small_patch16_224 exists and has" in note
    assert note in preflight.dry_run_notes(launch)


def test_a_teacher_that_takes_images_of_one_size_is_asked_about_no_other(tmp_path):
    def stage(family, depth):
        augment = {"policy": "none", "crop_padding": 0, "flip": True}
        values = {"parent": None, "seed": 0, "augment": augment}
        values["dataset"] = {"name": "imagenet", "validation_size": 5000, "resolution": 160}
        values["model"] = {"family": family, "depth": depth}
        values["recipe"] = {"epochs": 1, "batch_size": 8, "optimizer": {"lr": 0.1}}
        config = StageConfig.model_validate(values)
        folder = tmp_path / "stages" / stage_id(config)[:2] / stage_id(config)
        (folder / "checkpoint").mkdir(parents=True, exist_ok=True)
        write_json(folder / "config.json", config.model_dump(mode="json"))
        (folder / "checkpoint" / "final.pt").touch()
        timing = {"gpu_seconds": 1.0}
        done = {"stage": stage_id(config), "status": "done", "timing": timing}
        write_json(folder / "result.json", done)
        return stage_id(config)

    def misfit_of(family, depth, **dataset):
        data = DatasetConfig(name="imagenet", validation_size=5000, **dataset)
        return misfit(stage(family, depth), tmp_path, data)

    for family, depth in (("vit", 12), ("timm:deit_tiny_patch16_224", None)):
        assert "with 160 pixels and imagenet has 224" in misfit_of(family, depth)
        growing = {"resolution": 160, "start_resolution": 96}
        assert "images of one size" in misfit_of(family, depth, **growing)
    small = {"resolution": 160, "start_resolution": 16}
    assert "takes images from 17 pixels up" in misfit_of("resnet", 50, **small)
    assert "does not take images of 16 pixels" in misfit_of("timm:inception_v3", None, **small)
    assert misfit_of("timm:resnet10t", None, **small) is None
    assert misfit_of("vit", 12, resolution=160) is None
    assert misfit_of("resnet", 50) is None
