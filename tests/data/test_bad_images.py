"""Images that cannot be stored are listed together, and left out if that is requested."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness.data import write, writer
from harness.data.catalog import MANIFEST
from harness.data.crops import whole
from harness.data.dataset_file import read_dataset
from harness.data.datasets import load
from harness.data.manifest import read_manifest
from harness.data.tree import scan_parts
from harness.errors import UserError

PHOTOS = Path(__file__).with_name("photos.yaml")
CONFIG = read_dataset(str(PHOTOS))


def command(source, out, *words):
    return write.main(
        [f"dataset={PHOTOS}", f"source={source}", f"out={out}", "validation_size=9", *words]
    )


def spoil(copy):
    """Damage two images; return their names."""
    truncated, text = copy / "train/cat/cat_03.JPEG", copy / "val/dog/dog_00.JPEG"
    truncated.write_bytes(truncated.read_bytes()[:2000])
    text.write_text("no image")
    return str(truncated), str(text)


def test_all_bad_images_are_named_and_the_set_is_not_finished(copy, tmp_path):
    names = spoil(copy)
    with pytest.raises(UserError, match=r"2 images cannot be stored.*skip_bad=true") as caught:
        command(copy, tmp_path / "out")
    assert all(name in str(caught.value) for name in names)
    assert not (tmp_path / "out" / MANIFEST).exists()


def test_skip_bad_leaves_bad_images_out_and_the_others_as_they_are(copy, tree, tmp_path, capsys):
    names = spoil(copy)
    command(copy, tmp_path / "photos", "skip_bad=true")
    output = capsys.readouterr().out
    assert all(f"skipped {name}" in output for name in names)
    complete, good = load(CONFIG, str(tree), "imagefolder"), load(CONFIG, str(tmp_path), "ffcv")
    bad_id = scan_parts(tree / "photos")[0].paths.index("cat/cat_03.JPEG")
    parts = [(complete.train, good.train), (complete.validation, good.validation)]
    for before, after in parts:
        assert after.ids.tolist() == [i for i in before.ids if i != bad_id]
    assert sum(len(after) for _, after in parts) == 47
    assert len(good.test) == 14
    assert good.split_hash != complete.split_hash


def test_files_with_names_of_any_bytes_are_written_and_read(tmp_path, capsys):
    text = PHOTOS.read_text().replace("photos", "bytes")
    for old, new in (
        ("size: 9", "size: 2"),
        ("48", "6"),
        ("15", "2"),
        ("classes: 3", "classes: 2"),
        (": 32", ": 8"),
    ):
        text = text.replace(old, new)
    file = tmp_path / "bytes.yaml"
    file.write_text(text)
    source = tmp_path / os.fsdecode(b"bytes\xe9")
    for i in range(8):
        folder = source / ("val" if i > 5 else "train") / os.fsdecode((b"a\xff", b"b")[i % 2])
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 9), (30 * i, 0, 0)).save(folder / os.fsdecode(b"%d\xe9.PNG" % i))
    next((source / "train" / "b").iterdir()).write_text("no image")
    out = tmp_path / os.fsdecode(b"out\xe9") / "bytes"
    words = [f"dataset={file}", f"source={source}", f"out={out}", "validation_size=2"]
    with pytest.raises(UserError, match=r"bytes\\xe9/train/b/\d\\xe9\.PNG: it is not") as caught:
        write.main(words)
    str(caught.value).encode()  # raises an error for text that UTF-8 cannot hold
    write.main([*words, "skip_bad=true"])
    capsys.readouterr().out.encode()
    dataset = load(read_dataset(str(file)), str(out.parent), "ffcv")
    assert len(dataset.train) + len(dataset.validation) == 5
    dataset.loader_choice.encode()
    manifest = read_manifest(out)
    assert manifest.classes == (r"a\xff", "b")
    manifest.model_dump_json().encode()


def test_an_image_too_thin_to_be_shrunk_is_named_or_left_out(copy, tmp_path, capsys):
    thin = copy / "train/cat/cat_03.JPEG"
    Image.new("RGB", (2000, 1)).save(thin)
    with pytest.raises(UserError, match=r"cat_03.*2,000 x 1 pixels are too thin for max_res"):
        command(copy, tmp_path / "out", "max_resolution=500")
    command(copy, tmp_path / "photos", "max_resolution=500", "skip_bad=true")
    assert f"skipped {thin}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("width", "words", "message"),
    [
        (70_000, "compress_probability=0", "70,000 x 3 pixels, and an image stored as pixels has"),
        (70_000, "compress_probability=1", "and a JPEG has up to 65,500 a side; set max_resol"),
        (65_535, "compress_probability=1", "and a JPEG has up to 65,500 a side; set max_resol"),
        (65_535, "compress_probability=0", ""),
        (65_500, "compress_probability=1", ""),
    ],
)
def test_an_image_wider_than_ffcv_stores_is_named(copy, tmp_path, width, words, message):
    """Without a message, the image can be stored."""
    Image.new("RGB", (width, 3), "red").save(copy / "train/cat/cat_03.JPEG", "PNG")
    if message:
        with pytest.raises(UserError, match=f"cat_03.JPEG: .*{message}"):
            command(copy, tmp_path / "photos", words)
        return
    command(copy, tmp_path / "photos", words)
    part = load(CONFIG, str(tmp_path), "ffcv").train
    row = int(np.flatnonzero(part.ids == 3)[0])
    pixels = np.empty((1, 2, 2, 3), np.uint8)
    part.images.decoder(np.array([row]), np.array([3]), whole)(slice(0, 1), pixels)
    assert np.abs(pixels - [[255, 0, 0]]).max() < 3


def test_too_many_bad_images_stop_a_write_at_once_without_skip_bad(
    copy, tmp_path, monkeypatch, capsys
):
    names = [str(copy / f"train/cat/cat_{i:02}.JPEG") for i in (3, 4, 5, 6)]
    for name in names:
        Path(name).write_text("no image")
    monkeypatch.setattr(writer, "MOST_BAD", 2)
    with pytest.raises(
        UserError, match=r"3 images cannot be stored.*these are the first"
    ) as caught:
        command(copy, tmp_path / "out")
    assert sum(name in str(caught.value) for name in names) == 3
    assert not any((tmp_path / "out").iterdir())
    command(copy, tmp_path / "photos", "skip_bad=true")
    output = capsys.readouterr().out
    assert all(f"skipped {name}" in output for name in names)
    assert len(load(CONFIG, str(tmp_path), "ffcv").test) == 15
