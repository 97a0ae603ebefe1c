"""Writing data sets: the content of the files, interrupted writes, and wrong sources."""

import dataclasses
import itertools
import json
import pickle
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from harness.data import encode, write, writer
from harness.data.catalog import CATALOG, MANIFEST, info_of, missing
from harness.data.crops import centre, whole
from harness.data.dataset_file import read_dataset
from harness.data.datasets import load
from harness.data.imagefolder import read_image
from harness.errors import UserError
from harness.schema import DatasetConfig
from harness.store.claims import try_claim

PHOTOS = Path(__file__).with_name("photos.yaml")
CONFIG = read_dataset(str(PHOTOS))


def command(source, out, *words):
    return write.main(
        [f"dataset={PHOTOS}", f"source={source}", f"out={out}", "validation_size=9", *words]
    )


def test_each_file_holds_the_images_of_its_split(tree, betons):
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


def test_smaller_splits_are_those_of_the_tree(tree, betons):
    config = CONFIG.model_copy(update={"train_size": 20, "test_size": 7})
    one, other = load(config, str(betons), "ffcv"), load(config, str(tree), "imagefolder")
    assert one.split_hash == other.split_hash
    assert (len(one.train), len(one.test)) == (20, 7)


@pytest.mark.slow
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
    dataset.test.images.decoder(rows, dataset.test.ids, centre)(slice(0, 15), ours)
    assert np.array_equal(images.numpy(), ours)
    assert ids.flatten().tolist() == dataset.test.ids.tolist()
    assert labels.flatten().tolist() == dataset.test.labels.tolist()


def test_images_are_shrunk_and_compressed_the_same_by_any_number_of_threads(tree, tmp_path):
    from harness.data.ffcv import BetonImages

    source = tree / "photos"
    words = ("max_resolution=100", "compress_probability=0.5", "jpeg_quality=80")
    command(source, tmp_path / "one", *words, "workers=1")
    command(source, tmp_path / "four", *words, "workers=4")
    for name in ("train", "validation", "test"):
        one, four = ((tmp_path / n / f"{name}.beton").read_bytes() for n in ("one", "four"))
        assert one == four
    images = BetonImages(tmp_path / "one" / "train.beton")._image
    assert np.maximum(images["height"], images["width"]).max() == 100
    assert 0.2 < (images["mode"] == 0).mean() < 0.8
    settings = json.loads((tmp_path / "one" / MANIFEST).read_text())["settings"]
    assert settings == {"max_resolution": 100, "jpeg_quality": 80, "compress_probability": 0.5}


def test_an_interrupted_write_leaves_no_files(tree, tmp_path, monkeypatch):
    calls = []

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) == 45:  # in the second part
            raise KeyboardInterrupt
        return 0, 1, 1, b"abc"

    monkeypatch.setattr(encode, "_encoded", lambda part, *_: ((i, interrupted()) for i in part.ids))
    with pytest.raises(KeyboardInterrupt):
        command(tree / "photos", tmp_path / "photos")
    assert not list((tmp_path / "photos").iterdir())
    assert missing(info_of(CONFIG), str(tmp_path)) is not None
    with pytest.raises(UserError, match=r"photos is not there|needs \.beton files"):
        load(CONFIG, str(tmp_path), "ffcv")
    monkeypatch.undo()


@pytest.mark.slow
def test_a_killed_write_leaves_no_data_set_and_can_be_repeated(tree, tmp_path):
    program = (
        "import os, sys, harness.data.encode as e, harness.data.write as w\n"
        "encode, done = e.encode, []\n"
        "def killed(*rest):\n"
        "    done.append(1)\n"
        "    if len(done) == 45: os.kill(os.getpid(), 9)\n"  # in the second part
        "    return encode(*rest)\n"
        "e.encode = killed\n"
        "w.main([*sys.argv[1:], 'workers=1'])\n"
    )
    out = tmp_path / "photos"
    words = [f"dataset={PHOTOS}", f"source={tree / 'photos'}", f"out={out}", "validation_size=9"]
    done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True)
    assert done.returncode == -9, done.stderr
    (unfinished,) = out.glob(f"{writer.UNFINISHED}*")
    assert (unfinished / "train.beton").exists()
    assert not list(out.glob("*.beton"))
    with pytest.raises(UserError):
        load(CONFIG, str(tmp_path))
    command(tree / "photos", out)
    assert len(load(CONFIG, str(tmp_path), "ffcv").train) == 39
    names = {MANIFEST, "train.beton", "validation.beton", "test.beton"}
    assert {path.name for path in out.iterdir()} == names


def test_two_writers_do_not_share_a_folder(tree, tmp_path):
    claim = try_claim(tmp_path, "another")
    with pytest.raises(UserError, match="another process writes to"):
        command(tree / "photos", tmp_path)
    claim.release()


def test_an_image_that_takes_too_long_is_named(tree, tmp_path, monkeypatch):
    release = threading.Event()
    read = read_image

    def stuck(path):
        if path.name == "dog_05.JPEG":
            release.wait(20)
        return read(path)

    monkeypatch.setattr(writer, "read_image", stuck)
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
        (lambda root: shutil.rmtree(root / "val/newt"), "different classes: newt is in only one"),
        (lambda root: (root / "val/cat/cat_00.JPEG").unlink(), "photos should have 48 training"),
        (lambda root: shutil.rmtree(root / "val"), "has no folder val"),
    ],
)
def test_a_tree_that_differs_from_the_catalog_is_refused(copy, tmp_path, change, words):
    change(copy)
    with pytest.raises(UserError) as caught:
        command(copy, tmp_path / "out")
    assert words in str(caught.value)


def test_colour_arrays_are_written_without_change(tmp_path, monkeypatch):
    """The `.beton` files of a set in CIFAR's files have the pixels of these files."""
    info = dataclasses.replace(
        CATALOG["cifar10"], name="small", folder="files", train_size=200, test_size=40,
        files=("data_batch_1", "test_batch"), torchvision=None,
    )  # fmt: skip
    monkeypatch.setitem(CATALOG, "small", info)
    random = np.random.default_rng(0)
    (tmp_path / "files").mkdir()
    for name, size in zip(info.files, (200, 40), strict=True):
        pixels = random.integers(0, 256, (size, 3 * 32 * 32), dtype=np.uint8)
        batch = {"data": pixels, "labels": [i % 10 for i in range(size)]}
        (tmp_path / "files" / name).write_bytes(pickle.dumps(batch))
    # a reader of the project for a set that the project does not ship
    monkeypatch.setattr(
        write, "read_dataset", lambda name: DatasetConfig(name=name, validation_size=50)
    )
    write.main(["dataset=small", f"source={tmp_path}", f"out={tmp_path / 'small'}"])
    config = DatasetConfig(name="small", validation_size=50)
    arrays, files = load(config, str(tmp_path)), load(config, str(tmp_path), "ffcv")
    assert files.split_hash == arrays.split_hash
    for one, other in ((arrays.train, files.train), (arrays.test, files.test)):
        out = np.empty((len(one), 32, 32, 3), np.uint8)
        other.images.decoder(np.arange(len(one)), one.ids, whole)(slice(0, len(one)), out)
        assert np.array_equal(out.transpose(0, 3, 1, 2), one.images)
        assert np.array_equal(one.labels, other.labels)


def test_progress_prints_how_much_is_left(tree, tmp_path, monkeypatch, capsys):
    clock = itertools.count(0, 61)  # each image takes 61 seconds
    monkeypatch.setattr(writer, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    command(tree / "photos", tmp_path / "out")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 63
    assert lines[0] == "1 of 63 images (2%), 0 a second, 1:03:02 left"
    assert lines[62] == "63 of 63 images (100%), 0 a second, 0:00:00 left"


def test_without_ffcv_the_command_explains_what_to_install():
    program = (
        "import sys\n"
        "sys.modules['ffcv'] = sys.modules['cv2'] = None\n"
        "from harness.data.write import main\n"
        "from harness.errors import command\n"
        "command(main)\n"
    )
    words = ["dataset=digits", "out=x", "validation_size=200"]
    done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(
        "error: writing .beton files needs FFCV, which cannot be imported"
    )
    assert "libturbojpeg0-dev; or train from the image files" in done.stderr


@pytest.mark.parametrize(
    ("words", "output"),
    [
        ([f"dataset={PHOTOS}"], "out is missing: add out="),
        ([f"dataset={PHOTOS}", "out=x", "maxresolution=3"], "did you mean 'max_resolution'?"),
        ([f"dataset={PHOTOS}", "out=x", "workers=two"], "workers=two is not a whole number"),
        (
            [f"dataset={PHOTOS}", "out=x", "jpeg_quality=101"],
            "jpeg_quality=101 is out of range: 1 to 100",
        ),
        ([f"dataset={PHOTOS}", "out=x", "validation_size=9"], "add source=DIR"),
        (["dataset=digits", "out=x", "validation_size=1437"], "leaves nothing to train on"),
        (["dataset=digits", "out=x", "validation_size=5000"], "leaves nothing to train on"),
    ],
)
def test_wrong_arguments_are_explained(words, output):
    with pytest.raises(UserError) as caught:
        write.main(words)
    assert output in str(caught.value)


def test_the_default_validation_size_is_read_as_a_launch_reads_it(tmp_path):
    file = tmp_path / "pets.yaml"
    for content, output in (
        ("validation_size: 010", "YAML reads 010 as an octal number: write 10"),
        ("name: pets", "validation_size: Field required"),
        ("name: caf\xe9", "is not text in UTF-8"),
    ):
        file.write_bytes(content.encode("latin-1"))
        with pytest.raises(UserError, match=output):
            write.main([f"dataset={file}", "out=x"])


def test_for_an_unknown_data_set_the_message_names_its_file():
    with pytest.raises(UserError, match=r"no data set 'pets'.*dataset=path/to/pets\.yaml"):
        write.main(["dataset=pets", "source=x", "out=x"])


def test_a_folder_that_cannot_be_written_gets_a_sentence(tree, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"photos was not finished.*Not a directory"):
        command(tree / "photos", tmp_path / "file" / "photos")


def test_help_names_every_argument():
    assert all(f"{name}=" in write.__doc__ for name in write.OPTIONS)
