"""A written data set is checked when it is opened: its manifest, its files, and the config."""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from harness.data import source, write
from harness.data.catalog import MANIFEST
from harness.data.crops import centre
from harness.data.dataset_file import read_dataset
from harness.data.datasets import load
from harness.errors import UserError

PHOTOS = Path(__file__).with_name("photos.yaml")
CONFIG = read_dataset(str(PHOTOS))


def command(source, out, *words):
    return write.main(
        [f"dataset={PHOTOS}", f"source={source}", f"out={out}", "validation_size=9", *words]
    )


@pytest.fixture
def set_copy(betons, tmp_path):
    """A copy of the written data set, which the test may damage."""
    command = ["cp", "-r", "--sparse=always", betons / "photos", tmp_path / "photos"]
    subprocess.run(command, check=True)
    return tmp_path / "photos"


def truncate(folder):
    path = folder / "train.beton"
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 1)


def damage_index(folder):
    with (folder / "test.beton").open("r+b") as file:
        file.seek(3200)
        file.write(b"\x77")


def set_key(key, value):
    """Return a function that sets `key` in the manifest of a folder."""

    def change(folder):
        path = folder / MANIFEST
        path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))

    return change


ANOTHER_SPLIT = {"validation_size": 9, "split_seed": 0, "hash": "0" * 16}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (truncate, r"train\.beton has [\d,]+ bytes, and its manifest states"),
        (damage_index, r"the index of .*test\.beton is not the one"),
        (
            lambda folder: (folder / "validation.beton").unlink(),
            r"validation\.beton cannot be read",
        ),
        (set_key("split", ANOTHER_SPLIT), "hold another split than their manifest"),
        (lambda folder: (folder / MANIFEST).write_text("{"), r"manifest\.json cannot be read"),
        (lambda folder: (folder / MANIFEST).write_text("{}"), r"format: field required.*again"),
        (set_key("format", 7), "has format 7, and this version reads 1"),
        (set_key("parts", {}), r"parts\.train: field required\): write it again"),
        (set_key("split", {"hash": "x"}), r"split\.validation_size: field required"),
        (set_key("official", [1, 2]), "official: input should be"),
        (
            set_key("settings", {"max_resolution": "500"}),
            "settings.max_resolution: input should be",
        ),
        (
            set_key(
                "skipped", [{"part": "test", "id": 99, "label": 0, "image": "", "because": ""}]
            ),
            "no test image has id 99",
        ),
    ],
)
def test_a_damaged_set_is_explained_when_it_is_loaded(set_copy, change, words):
    change(set_copy)
    with pytest.raises(UserError, match=words):
        load(CONFIG, str(set_copy.parent), "ffcv")


@pytest.mark.parametrize(
    "change", [truncate, lambda folder: (folder / "validation.beton").unlink()]
)
def test_a_launch_reports_files_of_another_size_as_a_worker_does(set_copy, change):
    assert source.problem(CONFIG, str(set_copy.parent), "ffcv") is None
    change(set_copy)
    with pytest.raises(UserError) as caught:
        load(CONFIG, str(set_copy.parent), "ffcv")
    assert source.problem(CONFIG, str(set_copy.parent), "ffcv") == str(caught.value)


def test_another_split_than_the_written_one_is_refused(betons):
    config = CONFIG.model_copy(update={"validation_size": 12, "split_seed": 1})
    with pytest.raises(UserError) as caught:
        load(config, str(betons), "ffcv")
    for words in ("validation_size=9, split_seed=0", "validation_size=12, split_seed=1"):
        assert words in str(caught.value)


def test_images_smaller_than_the_resolution_are_refused(tree, tmp_path):
    command(tree / "photos", tmp_path / "photos", "max_resolution=40")
    larger = CONFIG.model_copy(update={"resolution": 41})
    with pytest.raises(
        UserError, match=r"max_resolution=40, and the config needs images of 41 pixels"
    ):
        load(larger, str(tmp_path), "ffcv")
    same = CONFIG.model_copy(update={"resolution": 40})
    assert load(same, str(tmp_path), "ffcv").resolution == 40


def test_a_data_set_records_how_its_pixels_were_changed(tree, betons, tmp_path):
    damaged = tmp_path / "tree"
    shutil.copytree(tree / "photos", damaged)
    for name in ("train/cat/cat_03.JPEG", "val/dog/dog_00.JPEG"):
        (damaged / name).write_text("no image")
    command(tree / "photos", tmp_path / "jpeg/photos", "max_resolution=99", "jpeg_quality=80")
    command(damaged, tmp_path / "incomplete/photos", "compress_probability=0", "skip_bad=true")
    stored = load(CONFIG, str(tmp_path / "incomplete"), "ffcv").stored
    assert stored.startswith("compress_probability=0 left_out=2:")
    assert load(CONFIG, str(betons), "ffcv").stored == "compress_probability=0"
    assert load(CONFIG, str(tree), "imagefolder").stored == "original"
    jpeg = "max_resolution=99 jpeg_quality=80 compress_probability=1"
    assert load(CONFIG, str(tmp_path / "jpeg"), "ffcv").stored == jpeg


def test_a_jpeg_that_is_damaged_in_the_file_is_named_by_its_id(tree, tmp_path):
    command(tree / "photos", tmp_path / "photos", "compress_probability=1")
    dataset = load(CONFIG, str(tmp_path), "ffcv")
    images = dataset.test.images
    start = int(images._image["data_ptr"][4])
    with images.path.open("r+b") as file:
        file.seek(start)
        file.write(bytes(20))
    decode = images.decoder(np.arange(15), dataset.test.ids, centre)
    with pytest.raises(UserError, match=r"image 4 in .*test\.beton does not decode"):
        decode(slice(0, 15), np.empty((15, 32, 32, 3), np.uint8))


def test_a_cache_that_does_not_fit_is_refused(set_copy, monkeypatch):
    read_text = Path.read_text
    meminfo = "MemTotal: 9999999 kB\nMemAvailable: 10 kB"
    monkeypatch.setattr(
        Path,
        "read_text",
        lambda path, *a: meminfo if path.name == "meminfo" else read_text(path, *a),
    )
    with pytest.raises(UserError, match=r"data_cache=process would read .* 0\.0 GB are free"):
        load(CONFIG, str(set_copy.parent), "ffcv", "process")
