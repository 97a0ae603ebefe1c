"""Data sets in memory: their images, labels and splits, and damaged or foreign files."""

import gzip
import re
from pathlib import Path

import numpy as np
import pytest

import harness.data
from harness.data.catalog import CATALOG, DatasetInfo
from harness.data.datasets import load
from harness.data.fashion_mnist import read_idx
from harness.errors import UserError
from harness.schema import DatasetConfig

DIGITS = DatasetConfig(name="digits", validation_size=200)
FASHION = DatasetConfig(name="fashion_mnist", validation_size=5_000, train_size=2_000)
DEBIAN = Path(CATALOG["fashion_mnist"].system_folder or "")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["digits", "fashion_mnist"])
def test_mean_and_std_are_those_of_the_official_training_set(name):
    dataset = load(DatasetConfig(name=name, validation_size=1, test_size=1))
    parts = (dataset.train, dataset.validation)
    images = np.concatenate([part.images[:, 0] for part in parts]) / np.float32(255)
    assert images.shape[0] == dataset.info.train_size
    assert dataset.info.mean == pytest.approx([images.mean(dtype=np.float64)] * 3, abs=5e-5)
    assert dataset.info.std == pytest.approx([images.std(dtype=np.float64)] * 3, abs=5e-5)


@pytest.mark.parametrize("config", [DIGITS, FASHION], ids=lambda config: config.name)
def test_images_are_bytes_with_three_equal_channels(config):
    dataset = load(config)
    side = dataset.info.resolution
    for part in (dataset.train, dataset.validation, dataset.test):
        assert part.images.shape == (len(part), 3, side, side)
        assert (part.images.dtype, part.labels.dtype, part.ids.dtype) == (np.uint8, *["int64"] * 2)
        assert part.images.flags.c_contiguous
        assert np.array_equal(part.images[:, 0], part.images[:, 2])
        assert set(part.labels) == set(range(10))
        assert np.all(np.diff(part.ids) > 0)
    assert dataset.train.images.max() == 255


def test_fashion_mnist_has_the_images_and_labels_of_its_files():
    dataset = load(FASHION)
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (2000, 5000, 10000)
    assert dataset.test.labels[:10].tolist() == [9, 2, 1, 1, 6, 1, 4, 6, 5, 7]
    labels = gzip.decompress((DEBIAN / "train-labels-idx1-ubyte.gz").read_bytes())[8:]
    images = gzip.decompress((DEBIAN / "train-images-idx3-ubyte.gz").read_bytes())[16:]
    for position in (0, 1_999):
        i = int(dataset.train.ids[position])
        assert dataset.train.labels[position] == labels[i]
        assert dataset.train.images[position, 1].tobytes() == images[784 * i : 784 * (i + 1)]


def test_the_test_set_of_digits_is_stratified_and_shares_no_image_with_training():
    from sklearn.datasets import load_digits

    dataset = load(DIGITS)
    counts = np.bincount(dataset.test.labels)
    assert counts.max() - counts.min() <= 2
    parts = (dataset.train, dataset.validation, dataset.test)
    ours = np.concatenate([part.images[:, 0] for part in parts]).reshape(-1, 64)
    theirs = np.rint(load_digits().data * (255 / 16)).astype(np.uint8)
    assert np.array_equal(ours[np.lexsort(ours.T)], theirs[np.lexsort(theirs.T)])


def test_the_splits_never_change():
    """Published tables depend on these splits: a change of the generator or the cut fails here."""
    assert load(DIGITS).split_hash == "50afbddda2632d94"
    assert load(FASHION).split_hash == "6700aab60bc9dc79"


def test_torchvisions_layout_is_read_before_the_files_of_the_system(tmp_path):
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for path in DEBIAN.iterdir():
        (raw / path.stem).write_bytes(gzip.decompress(path.read_bytes()))
    altered = bytearray((raw / "t10k-images-idx3-ubyte").read_bytes())
    altered[16] = 77
    (raw / "t10k-images-idx3-ubyte").write_bytes(altered)
    here = load(FASHION, str(tmp_path))
    assert here.test.images[0, :, 0, 0].tolist() == [77] * 3
    assert here.split_hash == load(FASHION).split_hash
    assert np.array_equal(here.train.images, load(FASHION).train.images)


@pytest.mark.parametrize(
    ("name", "damage", "word"),
    [
        ("train.gz", lambda raw: gzip.compress(raw)[:-40], "cannot be read"),
        ("train.gz", lambda raw: raw, "cannot be read"),
        ("train", lambda raw: raw[:-1], "15 bytes of data, and its header states 16"),
        ("train", lambda raw: b"\0\0\x0d" + raw[3:], "not an IDX file"),
        ("train", lambda raw: raw[:6], "not an IDX file"),
        ("train", lambda raw: b"", "not an IDX file"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, name, damage, word):
    whole = b"\0\0\x08\x02" + np.array([4, 4], ">u4").tobytes() + bytes(range(16))
    (tmp_path / name).write_bytes(whole)
    if not name.endswith("gz"):
        assert read_idx(tmp_path, "train").tolist() == np.arange(16).reshape(4, 4).tolist()
    (tmp_path / name).write_bytes(damage(whole))
    with pytest.raises(UserError, match=word) as caught:
        read_idx(tmp_path, "train")
    assert str(tmp_path / name) in str(caught.value)


def test_files_of_another_data_set_are_refused(tmp_path):
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for path in DEBIAN.iterdir():
        source = path.name.replace("train", "t10k")
        (raw / path.name).symlink_to(DEBIAN / source)
    with pytest.raises(UserError, match="training set of fashion_mnist should have 60000 images"):
        load(FASHION, str(tmp_path))


def test_the_example_of_a_data_set_can_be_loaded(tmp_path, monkeypatch):
    """`docs/datasets.md` adds a data set by one file and one entry, and prints both."""
    page = Path(harness.data.__file__).parents[2] / "docs" / "datasets.md"
    reader, row, script = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    (tmp_path / "shapes.py").write_text(reader)
    monkeypatch.setattr(harness.data, "__path__", [*harness.data.__path__, str(tmp_path)])
    names = {"DatasetInfo": DatasetInfo, "CATALOG": {}}
    exec(row, names)
    (info,) = names["CATALOG"].values()
    monkeypatch.setitem(CATALOG, info.name, info)
    monkeypatch.chdir(tmp_path)
    config = DatasetConfig(name="shapes", validation_size=50)
    with pytest.raises(UserError, match=r"shapes are not there.*make_shapes\.py"):
        load(config)
    exec(script)
    dataset = load(config)
    assert dataset.train.images.shape == (150, 3, 16, 16)
    bright = dataset.train.images[:, 0, 8, 8] >= 100
    assert np.array_equal(bright, dataset.train.labels == 1)


def test_a_wrong_config_is_refused_before_anything_is_read():
    with pytest.raises(UserError, match=r"dataset\.train_size: 2000 is more than the 1237"):
        load(DIGITS.model_copy(update={"train_size": 2_000}))
