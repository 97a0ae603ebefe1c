"""Written sets: what they hold, and what is said when the source or the files are bad."""

import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from harness.data import catalog, encode, write
from harness.data.catalog import CATALOG, MANIFEST, missing
from harness.data.crops import Centre
from harness.data.datasets import load
from harness.data.imagefolder import read_image, scan_both
from harness.errors import UserError
from harness.schema import DatasetConfig

CONFIG = DatasetConfig(name="photos", validation_size=9)


def command(source, out, *words):
    return write.main(
        ["dataset=photos", f"source={source}", f"out={out}", "validation_size=9", *words]
    )


@pytest.fixture
def copy(tree, tmp_path):
    """A tree of one's own, to be spoiled."""
    shutil.copytree(tree / "photos", tmp_path / "source")
    return tmp_path / "source"


@pytest.fixture
def set_copy(betons, tmp_path):
    """A written set of one's own, to be spoiled."""
    command = ["cp", "-r", "--sparse=always", betons / "photos", tmp_path / "photos"]
    subprocess.run(command, check=True)
    return tmp_path / "photos"


def test_each_part_holds_the_images_of_its_split(tree, betons):
    written, files = load(CONFIG, str(betons), "ffcv"), load(CONFIG, str(tree), "imagefolder")
    assert written.split_hash == files.split_hash
    assert (len(written.train), len(written.validation), len(written.test)) == (39, 9, 15)
    for one, other in zip(
        (written.train, written.validation, written.test),
        (files.train, files.validation, files.test),
        strict=True,
    ):
        assert np.array_equal(one.ids, other.ids)
        assert np.array_equal(one.labels, other.labels)
    assert not set(written.train.ids) & set(written.validation.ids)
    assert np.bincount(written.validation.labels).tolist() == [3, 3, 3]
    manifest = json.loads((betons / "photos" / MANIFEST).read_text())
    assert manifest["classes"] == ["cat", "dog", "newt"]
    assert manifest["split"] == {
        "validation_size": 9,
        "split_seed": 0,
        "hash": written.split_hash,
    }


def test_smaller_parts_are_those_that_arrays_would_give(tree, betons):
    config = CONFIG.model_copy(update={"train_size": 20, "test_size": 7})
    one, other = load(config, str(betons), "ffcv"), load(config, str(tree), "imagefolder")
    assert one.split_hash == other.split_hash
    assert (len(one.train), len(one.test)) == (20, 7)


def test_ffcvs_own_loader_reads_the_file(betons, tree):
    from ffcv.fields.basics import IntDecoder
    from ffcv.fields.rgb_image import CenterCropRGBImageDecoder
    from ffcv.loader import Loader, OrderOption
    from ffcv.transforms import ToTensor

    path = betons / "photos" / "test.beton"
    scalar = [IntDecoder(), ToTensor()]
    loader = Loader(
        str(path),
        batch_size=15,
        num_workers=1,
        order=OrderOption.SEQUENTIAL,
        os_cache=True,
        pipelines={
            "image": [CenterCropRGBImageDecoder((32, 32), 224 / 256), ToTensor()],
            "label": scalar,
            "id": [IntDecoder(), ToTensor()],
        },
    )
    ((images, labels, ids),) = list(loader)
    dataset = load(CONFIG, str(betons), "ffcv")
    ours = np.empty((15, 32, 32, 3), np.uint8)
    rows = np.arange(15)
    dataset.test.images.job(rows, dataset.test.ids, Centre())(slice(0, 15), ours)
    assert np.array_equal(images.numpy(), ours)
    assert ids.flatten().tolist() == dataset.test.ids.tolist()
    assert labels.flatten().tolist() == dataset.test.labels.tolist()


def test_images_are_shrunk_and_some_are_compressed_whatever_the_threads(tree, tmp_path):
    from harness.data.ffcv import Beton

    source = tree / "photos"
    words = ("max_resolution=100", "compress_probability=0.5", "jpeg_quality=80")
    command(source, tmp_path / "one", *words, "workers=1")
    command(source, tmp_path / "four", *words, "workers=4")
    for name in ("train", "validation", "test"):
        one, four = ((tmp_path / n / f"{name}.beton").read_bytes() for n in ("one", "four"))
        assert one == four
    images = Beton(tmp_path / "one" / "train.beton")._image
    assert np.maximum(images["height"], images["width"]).max() == 100
    assert 0.2 < (images["mode"] == 0).mean() < 0.8
    settings = json.loads((tmp_path / "one" / MANIFEST).read_text())["settings"]
    assert settings == {"max_resolution": 100, "jpeg_quality": 80, "compress_probability": 0.5}


def spoil(copy):
    """Two images that do not decode, and a text: their names."""
    truncated, text = copy / "train/cat/cat_03.JPEG", copy / "val/dog/dog_00.JPEG"
    truncated.write_bytes(truncated.read_bytes()[:2000])
    text.write_text("no image")
    return str(truncated), str(text)


def test_bad_images_are_all_named_and_nothing_looks_finished(copy, tmp_path):
    names = spoil(copy)
    with pytest.raises(UserError, match=r"2 images do not decode.*skip_bad=true") as caught:
        command(copy, tmp_path / "out")
    assert all(name in str(caught.value) for name in names)
    assert not (tmp_path / "out" / MANIFEST).exists()


def test_bad_images_are_left_out_if_asked_and_the_rest_stays_as_it_is(copy, tree, tmp_path, capsys):
    names = spoil(copy)
    command(copy, tmp_path / "photos", "skip_bad=true")
    said = capsys.readouterr().out
    assert all(f"skipped {name}" in said for name in names)
    whole, rest = load(CONFIG, str(tree), "imagefolder"), load(CONFIG, str(tmp_path), "ffcv")
    bad = scan_both(tree / "photos")[0].paths.index("cat/cat_03.JPEG")
    parts = [(whole.train, rest.train), (whole.validation, rest.validation)]
    for before, after in parts:
        assert after.ids.tolist() == [i for i in before.ids if i != bad]
    assert sum(len(after) for _, after in parts) == 47
    assert len(rest.test) == 14
    assert rest.split_hash != whole.split_hash


def test_an_interrupted_write_leaves_nothing_that_looks_finished(tree, tmp_path, monkeypatch):
    calls = []

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) == 45:  # in the second part
            raise KeyboardInterrupt
        return 0, 1, 1, b"abc"

    monkeypatch.setattr(encode, "_encoded", lambda part, *_: ((i, interrupted()) for i in part.ids))
    with pytest.raises(KeyboardInterrupt):
        command(tree / "photos", tmp_path / "photos")
    assert [path.name for path in (tmp_path / "photos").iterdir()] == ["train.beton"]
    assert missing(CATALOG["photos"], str(tmp_path)) is not None
    with pytest.raises(UserError, match=r"photos is not there|needs \.beton files"):
        load(CONFIG, str(tmp_path), "ffcv")
    monkeypatch.undo()


@pytest.mark.slow
def test_a_killed_write_leaves_nothing_that_looks_finished_and_can_be_repeated(tree, tmp_path):
    program = (
        "import os, sys, harness.data.write as w\n"
        "from harness.data.catalog import CATALOG, image_folder\n"
        "CATALOG['photos'] = image_folder('photos', 3, 48, 15, resolution=32)\n"
        "part = w.write_part\n"
        "def killed(path, *rest):\n"
        "    if path.name == 'validation.beton': os.kill(os.getpid(), 9)\n"
        "    return part(path, *rest)\n"
        "w.write_part = killed\n"
        "w.main(sys.argv[1:])\n"
    )
    out = tmp_path / "photos"
    words = ["dataset=photos", f"source={tree / 'photos'}", f"out={out}", "validation_size=9"]
    done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True)
    assert done.returncode == -9, done.stderr
    assert (out / "train.beton").exists()
    with pytest.raises(UserError):
        load(CONFIG, str(tmp_path))
    command(tree / "photos", out)
    assert len(load(CONFIG, str(tmp_path), "ffcv").train) == 39


def test_an_image_that_never_ends_is_named_within_the_deadline(tree, tmp_path, monkeypatch):
    release = threading.Event()
    read = read_image

    def stuck(path):
        if path.name == "dog_05.JPEG":
            release.wait(20)
        return read(path)

    monkeypatch.setattr(write, "read_image", stuck)
    monkeypatch.setattr(encode, "IMAGE_SECONDS", 0.5)
    threading.Timer(1.5, release.set).start()
    with pytest.raises(UserError, match=r"not finished.*dog_05\.JPEG did not come within 0\.5 s"):
        command(tree / "photos", tmp_path / "out")
    assert not any((tmp_path / "out").iterdir())


def test_a_finished_set_is_not_overwritten(tree, betons):
    with pytest.raises(UserError, match="holds a finished data set"):
        command(tree / "photos", betons / "photos")


def test_a_class_folder_without_images_is_named(copy, tmp_path):
    for path in (copy / "train" / "dog").iterdir():
        path.unlink()
    (copy / "train" / "dog" / "notes.txt").touch()
    for act in (
        lambda: command(copy, tmp_path / "out"),
        lambda: load(CONFIG, str(copy.rename(tmp_path / "photos").parent), "imagefolder"),
    ):
        with pytest.raises(UserError, match=r"1 of the 3 class folders of .* no image \(dog\)"):
            act()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda root: shutil.rmtree(root / "val/newt"), "other classes: newt is in one"),
        (lambda root: (root / "val/cat/cat_00.JPEG").unlink(), "photos should have 48 training"),
        (lambda root: shutil.rmtree(root / "val"), "val cannot be read (No such file"),
    ],
)
def test_another_tree_than_the_catalogs_is_refused(copy, tmp_path, change, words):
    change(copy)
    with pytest.raises(UserError) as caught:
        command(copy, tmp_path / "out")
    assert words in str(caught.value)


def truncate(folder):
    path = folder / "train.beton"
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 1)


def damage_index(folder):
    with (folder / "test.beton").open("r+b") as file:
        file.seek(3200)
        file.write(b"\x77")


def another_split(folder):
    path = folder / MANIFEST
    manifest = json.loads(path.read_text())
    manifest["split"]["hash"] = "0" * 16
    path.write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (truncate, r"train\.beton has [\d,]+ bytes where its manifest says"),
        (damage_index, r"the index of .*test\.beton is not the one"),
        (lambda folder: (folder / "validation.beton").unlink(), r"validation\.beton is not there"),
        (another_split, "hold another split than their manifest"),
        (lambda folder: (folder / MANIFEST).write_text("{"), r"manifest\.json cannot be read"),
    ],
)
def test_a_spoiled_set_is_named_when_it_is_loaded(set_copy, change, words):
    change(set_copy)
    with pytest.raises(UserError, match=words):
        load(CONFIG, str(set_copy.parent), "ffcv")


def test_another_split_than_the_written_one_is_refused(betons):
    config = DatasetConfig(name="photos", validation_size=12, split_seed=1)
    with pytest.raises(UserError) as caught:
        load(config, str(betons), "ffcv")
    for words in ("validation_size=9, split_seed=0", "validation_size=12, split_seed=1"):
        assert words in str(caught.value)


def test_a_jpeg_that_is_damaged_in_the_file_is_named_by_its_id(tree, tmp_path):
    command(tree / "photos", tmp_path / "photos", "compress_probability=1")
    dataset = load(CONFIG, str(tmp_path), "ffcv")
    images = dataset.test.images
    start = int(images._image["data_ptr"][4])
    with images.path.open("r+b") as file:
        file.seek(start)
        file.write(bytes(20))
    job = images.job(np.arange(15), dataset.test.ids, Centre())
    with pytest.raises(UserError, match=r"image 4 in .*test\.beton does not decode"):
        job(slice(0, 15), np.empty((15, 32, 32, 3), np.uint8))


def test_a_cache_that_does_not_fit_is_refused(betons, monkeypatch):
    meminfo = Path.read_text
    monkeypatch.setattr(
        Path,
        "read_text",
        lambda path, *a: "MemAvailable: 10 kB" if path.name == "meminfo" else meminfo(path, *a),
    )
    with pytest.raises(UserError, match=r"data_cache=process would read .* 0\.0 GB are free"):
        load(CONFIG, str(betons), "ffcv", "process")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["dataset=photos"], "usage:"),
        (["dataset=photos", "out=x", "maxresolution=3"], "did you mean 'max_resolution'?"),
        (["dataset=photos", "out=x", "workers=two"], "workers=two is no int"),
        (["dataset=photos", "out=x", "jpeg_quality=101"], "jpeg_quality=101 is outside 1 to 100"),
        (["dataset=photos", "out=x"], "Say validation_size=N"),
        (["dataset=photos", "out=x", "validation_size=9"], "say source=DIR"),
    ],
)
def test_wrong_words_are_explained(words, said):
    with pytest.raises(UserError) as caught:
        write.main(words)
    assert said in str(caught.value)


def test_a_tree_that_the_catalog_does_not_know_comes_with_its_line(tree):
    with pytest.raises(UserError) as caught:
        write.main(["dataset=pets", f"source={tree / 'photos'}", "out=x"])
    line = str(caught.value).splitlines()[1].strip().rstrip(",")
    info = eval(line, vars(catalog))
    assert (info.name, info.num_classes, info.train_size, info.test_size) == ("pets", 3, 48, 15)


def test_a_place_that_cannot_be_written_is_a_sentence(tree, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"photos was not finished.*Not a directory"):
        command(tree / "photos", tmp_path / "file" / "photos")


def test_help_names_every_word(capsys):
    assert write.main(["--help"]) == 0
    said = capsys.readouterr().out
    assert all(f"{name}=" in said for name in write._Words.__dataclass_fields__)
