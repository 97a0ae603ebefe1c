"""A folder of images becomes a data set by a file that `harness.data.describe` completes."""

import os
import re
import shutil

import pytest

from harness.config import load as load_grid
from harness.data import describe, load, source
from harness.data.dataset_file import read_dataset
from harness.errors import UserError
from harness.schema import StageConfig
from harness.store.identity import stage_id, trial_id

GRID = """defaults:
  - override /dataset: {file}
  - override /model: cifar_resnet
  - override /recipe: quick
model: {{depth: 8, width: 0.25}}
recipe: {{batch_size: 8}}
axes: {{magnitude: [none], seed: [0]}}
"""


@pytest.fixture
def pets(copy, tmp_path):
    """The file of a data set, and a folder that holds `pets/train` and `pets/val`."""
    (tmp_path / "root").mkdir()
    copy.rename(tmp_path / "root/pets")
    file = tmp_path / "pets.yaml"
    file.write_text("# My pets\nresolution: 24  # pixels\nname: pets\n")
    return file, tmp_path / "root"


def run(file, root):
    return describe.main([f"dataset={file}", f"data_root={root}"])


def test_describe_completes_the_file_and_keeps_what_the_user_wrote(pets, capsys):
    file, root = pets
    (root / "pets/train/.ipynb_checkpoints").mkdir()
    (root / "pets/val/cat/._cat_00.JPEG").touch()
    assert run(file, root) == 0
    text = file.read_text()
    assert text.startswith("# My pets\nresolution: 24  # pixels\nname: pets\n")
    config = read_dataset(str(file))
    facts = config.content
    assert (config.images, config.test, config.validation_size) == ("folder", "val", 4)
    assert (facts.train_images, facts.test_images, facts.classes) == (48, 15, 3)
    output = capsys.readouterr().out
    assert "2 hidden files or folders are left out" in output
    assert "48 training images and 15 test images in 3 classes" in output
    assert run(file, root) == 0  # a second time
    assert file.read_text() == text


def test_mean_and_deviation_are_those_of_the_training_images(pets):
    file, root = pets
    run(file, root)
    config = read_dataset(str(file))
    split = load(config, str(root), "imagefolder").train
    from harness.data.datasets import first_images

    pixels = first_images(load(config, str(root), "imagefolder"), len(split)) / 255.0
    assert config.content.mean == pytest.approx(pixels.mean(axis=(0, 2, 3)), abs=0.02)
    assert config.content.std == pytest.approx(pixels.std(axis=(0, 2, 3)), abs=0.02)


def test_a_grid_names_the_file_by_any_path_and_the_content_is_the_identity(
    pets, tmp_path, monkeypatch
):
    file, root = pets
    run(file, root)
    other = tmp_path / "other"
    shutil.copytree(root / "pets", other / "images")
    moved = other / "pets.yaml"
    moved.write_text(file.read_text() + f"train: {other}/images/train\n".replace("//", "/"))
    moved.write_text(moved.read_text().replace("test: val", f"test: {other}/images/val"))
    grid = tmp_path / "grid.yaml"
    monkeypatch.chdir(tmp_path)
    ids = set()
    for spelling in ("pets.yaml", "./pets.yaml", str(file), str(moved)):
        grid.write_text(GRID.format(file=spelling))
        (trial,) = load_grid([f"grid={grid}"]).grid.trials
        (on_command_line,) = load_grid([f"grid={grid}", f"dataset={file}"]).grid.trials
        ids |= {trial.id, on_command_line.id, trial_id(trial.config)}
    assert len(ids) == 1


def test_a_grid_finds_the_file_beside_itself(pets, tmp_path):
    file, root = pets
    run(file, root)
    (tmp_path / "grid.yaml").write_text(GRID.format(file="pets.yaml"))
    (trial,) = load_grid([f"grid={tmp_path / 'grid.yaml'}"]).grid.trials
    assert trial.config.dataset == read_dataset(str(file))


def test_other_content_is_another_stage_and_a_changed_folder_is_refused(pets):
    file, root = pets
    run(file, root)
    before = read_dataset(str(file))
    image = root / "pets/train/dog/dog_05.JPEG"
    image.write_bytes(image.read_bytes() + b"\0")
    expected = "names or sizes of the files.*harness.data.describe dataset=FILE` again"
    with pytest.raises(UserError, match=expected):
        load(before, str(root), "imagefolder")
    assert re.search(expected, source.problem(before, str(root), "auto"))
    run(file, root)
    after = read_dataset(str(file))
    load(after, str(root), "imagefolder")

    def stage(dataset):
        return stage_id(
            StageConfig.model_validate(
                {
                    "seed": 0,
                    "dataset": dataset,
                    "model": {"family": "cifar_resnet", "depth": 8},
                    "augment": {"policy": "none", "crop_padding": 0, "flip": False},
                    "recipe": {"epochs": 1, "batch_size": 8, "optimizer": {"lr": 0.1}},
                }
            )
        )

    assert stage(before) != stage(after)


def test_without_a_test_set_a_fixed_share_is_cut_from_the_training_images(pets):
    file, root = pets
    shutil.rmtree(root / "pets/val")
    run(file, root)
    config = read_dataset(str(file))
    assert (config.test, config.test_share) == (None, 0.2)
    dataset = load(config, str(root), "imagefolder")
    assert [len(split) for split in dataset.splits.values()] == [35, 3, 10]
    paths = [path for split in dataset.splits.values() for path in split.images._paths]
    assert len(set(paths)) == 48


def test_train_and_test(pets):
    file, root = pets
    (root / "pets/val").rename(root / "pets/test")
    run(file, root)
    assert read_dataset(str(file)).test == "test"


def test_endings_may_be_in_upper_case(pets):
    file, root = pets
    for path in list((root / "pets/train/cat").iterdir()):
        path.rename(path.with_suffix(".JPG"))
    run(file, root)
    assert read_dataset(str(file)).content.train_images == 48


def flat(root):
    for path in list((root / "val").rglob("*.*")):
        path.rename(root / "val" / path.name)
    for folder in [path for path in (root / "val").iterdir() if path.is_dir()]:
        folder.rmdir()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda root: shutil.rmtree(root / "train"), "the training images of pets are not there"),
        (lambda root: shutil.rmtree(root / "val/newt"), "different classes: newt is in only one"),
        (flat, "has no class folders"),
        (lambda root: shutil.copytree(root / "val", root / "test"), "test and val: write into"),
        (lambda root: [shutil.rmtree(root / p / c) for p in ("train", "val")
                       for c in ("cat", "dog")], "one class folder, newt"),
    ],
)  # fmt: skip
def test_what_cannot_be_a_data_set_is_refused_and_the_file_stays(pets, change, sentence):
    file, root = pets
    before = file.read_text()
    change(root / "pets")
    with pytest.raises(UserError, match=sentence):
        run(file, root)
    assert file.read_text() == before


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("name: cifar10\n", "cifar10 is the name of a shipped data set"),
        ("images: folder\n", "name: Field required"),
        ("name: pets\ntrian: train\n", "trian.*did you mean 'train'"),
        ("name: pets\ntest: val\ntest_share: 0.3\n", "two test sets: keep one"),
        ("name: pets\ntrain: ../x\n", "is not a folder below data_root/NAME"),
        ("- pets\n", "is not a mapping of keys"),
    ],
)
def test_a_wrong_file_gets_a_sentence(pets, text, sentence):
    file, root = pets
    file.write_text(text)
    with pytest.raises(UserError, match=sentence):
        run(file, root)
    assert file.read_text() == text


def test_an_undescribed_file_is_refused_by_a_launch(pets, tmp_path):
    file, _ = pets
    file.write_text("name: pets\nimages: folder\nvalidation_size: 4\n")
    (tmp_path / "grid.yaml").write_text(GRID.format(file=os.fspath(file)))
    with pytest.raises(UserError, match=r"dataset\.content: .*harness\.data\.describe"):
        load_grid([f"grid={tmp_path / 'grid.yaml'}"])
