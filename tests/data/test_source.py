"""A launch reports mistakes in data sets before it queues anything, as a worker would."""

import json
import shutil
from pathlib import Path

import pytest

from harness.commands import doctor, launch
from harness.config import load as load_grid
from harness.data import datasets, source
from harness.data.catalog import MANIFEST
from harness.data.dataset_file import read_dataset
from harness.data.datasets import load
from harness.errors import UserError
from harness.models.registry import FAMILIES

PHOTOS = Path(__file__).with_name("photos.yaml")
CONFIG = read_dataset(str(PHOTOS))
GRID = f"""# Photographs.
defaults:
  - override /dataset: {PHOTOS}
  - override /model: cifar_resnet
  - override /recipe: quick
dataset: {{resolution: 32}}
model: {{depth: 8, width: 0.25}}
recipe: {{epochs: 1, batch_size: 8}}
run: {{device: cpu, engine: ddp}}
axes: {{magnitude: [none], seed: [0]}}
"""


def with_manifest(betons, tmp_path, **content):
    """Return a root that has only a manifest, in which `content` replaces some keys."""
    manifest = json.loads((betons / "photos" / MANIFEST).read_text()) | content
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / MANIFEST).write_text(json.dumps(manifest))
    return tmp_path


@pytest.fixture
def no_ffcv(monkeypatch):
    monkeypatch.setattr(source.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(datasets, "ffcv_trouble", lambda: "FFCV cannot be imported (none here)")
    load.cache_clear()


def test_a_set_that_can_be_read_has_no_problem(tree, betons):
    for root, loaders in ((tree, ("auto", "imagefolder")), (betons, ("auto", "ffcv"))):
        for loader in loaders:
            assert source.problem(CONFIG, str(root), loader) is None


def test_a_manifest_that_does_not_fit_is_a_problem(betons, tmp_path):
    settings = {"max_resolution": 16, "jpeg_quality": 90, "compress_probability": 1}
    root = with_manifest(betons, tmp_path, settings=settings)
    assert "max_resolution=16" in str(source.problem(CONFIG, str(root), "auto"))
    another = CONFIG.model_copy(update={"split_seed": 3})
    assert "split_seed=0" in str(source.problem(another, str(betons), "ffcv"))


@pytest.mark.parametrize(("files", "loader"), [("tree", "ffcv"), ("betons", "imagefolder")])
def test_files_that_the_loader_does_not_read_are_a_problem(tree, betons, files, loader):
    root = str({"tree": tree, "betons": betons}[files])
    message = source.problem(CONFIG, root, loader)
    assert message is not None
    assert f"run.loader={loader} needs" in message
    with pytest.raises(UserError) as caught:
        load(CONFIG, root, loader)
    assert str(caught.value) == message


@pytest.mark.parametrize("part", ["train", "val", ""])
def test_class_folders_that_do_not_fit_are_a_problem(tree, tmp_path, part):
    shutil.copytree(tree / "photos", tmp_path / "photos")
    for folder in [part] if part else ["train", "val"]:
        shutil.rmtree(tmp_path / "photos" / folder / "newt")
    message = source.problem(CONFIG, str(tmp_path), "auto")
    with pytest.raises(UserError) as caught:
        load(CONFIG, str(tmp_path))
    assert message == str(caught.value) if part else "2 class folders, and photos has 3" in message


@pytest.mark.usefixtures("no_ffcv")
def test_without_ffcv_only_a_tree_can_be_read(tree, betons):
    assert source.problem(CONFIG, str(tree), "auto") is None
    for loader in ("auto", "ffcv"):
        assert "FFCV is not installed" in str(source.problem(CONFIG, str(betons), loader))


@pytest.fixture
def launched(tmp_path):
    """A function that returns the arguments of a launch with a data root; and its store."""
    grid, store = tmp_path / "photos_grid.yaml", tmp_path / "store"
    grid.write_text(GRID)
    return lambda root: [f"grid={grid}", f"store={store}", f"run.data_root={root}"], store


def test_launch_dry_run_and_doctor_report_a_loader_without_files(tree, launched, capsys):
    words, store = launched
    arguments = [*words(tree), "run.loader=ffcv"]
    with pytest.raises(UserError, match=r"run\.loader=ffcv needs \.beton files of photos"):
        launch.main(arguments)
    assert not store.exists()
    launch.main([*arguments, "dry_run=true"])
    assert "note: run.loader=ffcv needs .beton files of photos" in capsys.readouterr().out
    ((state, name, why),) = doctor.data(load_grid(arguments))
    assert (state, name) == ("bad", "photos")
    assert "run.loader=ffcv needs" in why
    assert list(doctor.data(load_grid(words(tree)))) == [("ok", "photos", "there")]


def test_the_doctor_checks_the_images_that_a_run_would_read(tree, launched, tmp_path):
    shutil.copytree(tree / "photos", tmp_path / "copy" / "photos")
    for name in ("newt_03.JPEG", "newt_04.JPEG"):
        (tmp_path / "copy/photos/train/newt" / name).write_bytes(b"not an image")
    words, _ = launched
    findings = list(doctor.data(load_grid(words(tmp_path / "copy"))))
    assert findings[0] == ("ok", "photos", "there")
    assert {level for level, _, _ in findings[1:]} == {"bad"}
    assert "newt_03.JPEG" in "".join(detail for _, _, detail in findings)


def test_how_to_use_a_registered_name_without_a_config_file_is_explained(
    launched, tree, monkeypatch
):
    words, _ = launched
    with pytest.raises(UserError, match=r"no dataset 'photos'.*file, dataset=path/to/pets\.yaml"):
        load_grid([*words(tree), "dataset=photos"])
    monkeypatch.setitem(FAMILIES.items, "mine", FAMILIES.get("vit"))
    with pytest.raises(UserError, match=r"set model\.family=mine, and the other keys of model"):
        load_grid([*words(tree), "model=mine"])


@pytest.mark.usefixtures("no_ffcv")
def test_the_doctor_imports_ffcv_and_reports_its_error(betons, launched):
    words, _ = launched
    ((state, _, why),) = doctor.data(load_grid(words(betons)))
    assert state == "bad"
    assert "FFCV cannot be imported (none here)" in why
    message = {what: (state, why) for state, what, why in doctor.machine(load_grid(words(betons)))}
    assert message["ffcv"][0] == "note"
    assert "run.loader=auto reads image files" in message["ffcv"][1]


def test_ffcv_of_a_container_is_not_searched_on_this_machine(betons, launched, no_ffcv, capsys):
    words, _ = launched
    launch.main([*words(betons), "dry_run=true"])
    assert "FFCV is not installed" in capsys.readouterr().out
    launch.main(
        [*words(betons), "dry_run=true", "cluster.slurm.python=apptainer exec x.sif python"]
    )
    assert "FFCV" not in capsys.readouterr().out
