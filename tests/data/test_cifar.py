"""The files of CIFAR are read in their order, gzipped or not, and cannot run code."""

import gzip
import importlib
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest

from harness.data.catalog import CATALOG, find, missing
from harness.data.cifar import read
from harness.data.datasets import load
from harness.errors import UserError
from harness.schema import DatasetConfig


def fill(root: Path, name: str, batch: int) -> np.ndarray:
    """Write files in the layout of `name` whose i-th image has the value i modulo 251 everywhere.

    Return these values. Test images follow training images. batch: images in a training file.
    """
    info = CATALOG[name]
    folder = root / (info.folder or "")
    folder.mkdir(parents=True)
    values = (np.arange(info.train_size + info.test_size) % 251).astype(np.uint8)
    start = 0
    for file in info.files:
        size = info.test_size if file.startswith("test") else batch
        data = np.repeat(values[start : start + size, None], 3072, axis=1)
        labels = (np.arange(start, start + size) % info.num_classes).tolist()
        key = "fine_labels" if info.num_classes == 100 else "labels"
        with (folder / file).open("wb") as handle:
            pickle.dump({"data": data, key: labels, "coarse_labels": [0]}, handle, protocol=4)
        start += size
    return values


@pytest.mark.slow
@pytest.mark.parametrize(("name", "batch"), [("cifar10", 10_000), ("cifar100", 50_000)])
def test_images_and_labels_are_read_in_the_order_of_the_files(tmp_path, name, batch):
    values = fill(tmp_path, name, batch)
    dataset = load(
        DatasetConfig(name=name, validation_size=1_000, train_size=2_000, test_size=500),
        str(tmp_path),
    )
    for part, offset in ((dataset.train, 0), (dataset.validation, 0), (dataset.test, 50_000)):
        position = part.ids + offset
        assert np.array_equal(part.images[:, 1, 5, 5], values[position])
        assert np.array_equal(part.labels, position % dataset.info.num_classes)
        assert part.images.shape[1:] == (3, 32, 32)


def python2_pickle(data: bytes, labels: list[int]) -> bytes:
    """Return a batch as Python 2 and NumPy 1 pickled it, as in the published files."""

    def text(raw: bytes) -> bytes:
        return b"U" + bytes([len(raw)]) + raw

    rows = struct.pack("<H", len(labels))
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + text(b"b") + b"\x87R"
        b"(K\x01M" + rows + b"M\x00\x0c\x86"
        b"cnumpy\ndtype\n" + text(b"u1") + b"K\x00K\x01\x87R"
        b"(K\x03" + text(b"|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89T" + struct.pack("<i", len(data)) + data + b"tb"
    )
    numbers = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    return b"\x80\x02}(" + text(b"data") + array + text(b"labels") + numbers + b"u."


def write_batches(folder: Path, raw: bytes) -> None:
    for name in CATALOG["cifar10"].files:
        (folder / name).write_bytes(raw)


def test_the_published_opcodes_are_read(tmp_path):
    data = np.random.default_rng(0).integers(0, 256, (2, 3072), dtype=np.uint8)
    write_batches(tmp_path, python2_pickle(data.tobytes(), [3, 9]))
    official = read(tmp_path, CATALOG["cifar10"])
    assert np.array_equal(official.test_images, data.reshape(2, 3, 32, 32))
    assert official.test_labels.tolist() == [3, 9]
    assert official.train_images.shape == (10, 3, 32, 32)


class Hostile:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_pickle_cannot_run_code(tmp_path):
    trace = tmp_path / "trace"
    raw = pickle.dumps({"data": Hostile(trace), "labels": [0]})
    write_batches(tmp_path, raw)
    with pytest.raises(UserError, match=r"data_batch_1 .* names pathlib\S*, which no CIFAR file"):
        read(tmp_path, CATALOG["cifar10"])
    assert not trace.exists()
    pickle.loads(raw)
    assert trace.exists(), "the pickle would have run code in an ordinary unpickler"


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"not a pickle",
        pickle.dumps([1, 2]),
        pickle.dumps({"data": "text", "labels": []}),
        pickle.dumps({"data": [[0] * 3072], "labels": [0, 1]}),
        python2_pickle(bytes(3072), [1, 2]),
        python2_pickle(bytes(6144), [1, 2])[:-3000],
    ],
)
def test_a_damaged_batch_is_named(tmp_path, raw):
    write_batches(tmp_path, raw)
    with pytest.raises(UserError, match="data_batch_1 is not a readable CIFAR file"):
        read(tmp_path, CATALOG["cifar10"])


def idx(values: np.ndarray) -> bytes:
    return (
        b"\0\0\x08"
        + bytes([values.ndim])
        + np.array(values.shape, ">u4").tobytes()
        + (values.astype(np.uint8).tobytes())
    )


def contents(name: str) -> dict[str, bytes]:
    """Return the content of each file of a data set, with two random images in a file."""
    info, random = CATALOG[name], np.random.default_rng(0)
    key = "fine_labels" if info.num_classes == 100 else "labels"
    files = {}
    for file in info.files:
        images = random.integers(0, 256, (2, info.resolution, info.resolution), dtype=np.uint8)
        if info.reader == "fashion_mnist":
            files[file] = idx(np.array([1, 2]) if "labels" in file else images)
        else:
            data = np.repeat(images.reshape(2, -1), 3, axis=1)
            files[file] = pickle.dumps({"data": data, key: [1, 2]})
    return files


@pytest.mark.parametrize("name", [info.name for info in CATALOG.values() if info.files])
def test_every_file_is_read_plain_or_gzipped(name, tmp_path):
    info = CATALOG[name]
    sets = []
    for kind in ("plain", "gzipped", "mixed"):
        root = tmp_path / kind
        folder = root / (info.folder or "")
        folder.mkdir(parents=True)
        for i, (file, content) in enumerate(contents(name).items()):
            if kind == "plain" or (kind == "mixed" and i % 2):
                (folder / file).write_bytes(content)
            else:
                (folder / f"{file}.gz").write_bytes(gzip.compress(content))
        assert missing(info, str(root)) is None
        reader = importlib.import_module(f"harness.data.{info.reader}")
        official = reader.read(find(info, str(root)), info)
        sets.append([official.train_images, official.train_labels, official.test_images])
        (folder / f"{info.files[0]}.gz").write_bytes(gzip.compress(b"x" * 99)[:-9])
        (folder / info.files[0]).unlink(missing_ok=True)
        with pytest.raises(UserError, match=rf"{info.files[0]}\.gz cannot be read"):
            reader.read(folder, info)
    for other in sets[1:]:
        assert all(np.array_equal(a, b) for a, b in zip(sets[0], other, strict=True))
