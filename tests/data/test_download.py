"""Torchvision's downloader with a server on this machine instead of the network."""

import functools
import hashlib
import http.server
import tarfile
import threading

import pytest
import torchvision.datasets

from harness.data.catalog import CATALOG
from harness.data.download import download, main
from harness.errors import UserError


@pytest.fixture
def served(tmp_path):
    """A folder and the address of the server that serves it."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder))
    )
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def cifar100(served, tmp_path, monkeypatch):
    """An archive on that server with the file names of CIFAR-100."""
    folder, address = served
    archive = folder / "cifar-100-python.tar.gz"
    content = tmp_path / "cifar-100-python"
    content.mkdir()
    for name in ("train", "test", "meta"):
        (content / name).write_text(name)
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(content, "cifar-100-python")
    checksum = hashlib.md5(archive.read_bytes()).hexdigest()
    monkeypatch.setattr(torchvision.datasets.CIFAR100, "url", address + archive.name)
    monkeypatch.setattr(torchvision.datasets.CIFAR100, "tgz_md5", checksum)
    monkeypatch.chdir(tmp_path / "served")  # where there is no folder data/
    return archive


def test_an_archive_is_extracted_into_torchvisions_layout(cifar100, tmp_path):
    root = tmp_path / "root"
    folder = download(CATALOG["cifar100"], str(root))
    assert folder == root / "cifar-100-python"
    assert sorted(path.name for path in folder.iterdir()) == ["meta", "test", "train"]
    assert list(root.iterdir()) == [folder], "no temporary folder is left"
    cifar100.unlink()
    assert download(CATALOG["cifar100"], str(root)) == folder, (
        "existing files are not downloaded again"
    )


def test_single_files_are_downloaded_into_torchvisions_layout(served, tmp_path, monkeypatch):
    served_folder, address = served
    source = torchvision.datasets.FashionMNIST
    resources = []
    for name, _ in source.resources:
        (served_folder / name).write_text(name)
        resources.append((name, hashlib.md5(name.encode()).hexdigest()))
    monkeypatch.setattr(source, "resources", resources)
    monkeypatch.setattr(source, "mirrors", [address])
    _hide_system_folder(monkeypatch)
    folder = download(CATALOG["fashion_mnist"], str(tmp_path / "root"))
    assert folder == tmp_path / "root" / "FashionMNIST" / "raw"
    assert sorted(path.name for path in folder.iterdir()) == sorted(n for n, _ in resources)


def _hide_system_folder(monkeypatch):
    import dataclasses

    row = dataclasses.replace(CATALOG["fashion_mnist"], system_folder=None)
    monkeypatch.setitem(CATALOG, "fashion_mnist", row)


def test_a_failed_download_names_the_set_the_folder_and_the_error(cifar100, tmp_path, monkeypatch):
    cifar100.unlink()
    with pytest.raises(UserError, match="404") as caught:
        main(["cifar100", f"data_root={tmp_path / 'root'}"])
    text = str(caught.value)
    assert "the files of the data set cifar100 are not there" in text
    assert str(tmp_path / "root" / "cifar-100-python") in text
    assert list((tmp_path / "root").iterdir()) == []


def test_a_wrong_checksum_leaves_nothing(cifar100, tmp_path):
    cifar100.write_bytes(cifar100.read_bytes() + b"x")
    with pytest.raises(UserError, match="corrupted"):
        download(CATALOG["cifar100"], str(tmp_path / "root"))
    assert list((tmp_path / "root").iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ([], "name one, such as cifar10"),
        (["cifar10", "root=here"], "no option 'root' .did you mean 'data_root'"),
        (["cifar11"], "did you mean 'cifar10'"),
        (["digits"], "no files to download"),
        (["cifar10", "data_root=~nobody-here/x"], "this machine has no such user"),
    ],
)
def test_a_wrong_argument_is_explained(arguments, word):
    with pytest.raises(UserError, match=word):
        main(arguments)
