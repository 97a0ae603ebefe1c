"""Download a data set from torchvision's address into torchvision's layout.

    python -m harness.data.download cifar10 [data_root=DIR]        # default: data/

The files are written to a temporary folder, which is renamed at the end. So another worker never
sees an incomplete folder, even if the download is interrupted.
"""

from __future__ import annotations

import socket
import tempfile
import urllib.error
from pathlib import Path

from harness.arguments import Option, parse_options
from harness.data.catalog import CATALOG, DatasetInfo, find, missing, shown
from harness.errors import UserError, command, nearest
from harness.files import user_path

OPTIONS = {"data_root": Option()}
_SECONDS_WITHOUT_DATA = 60.0


def _fetch(info: DatasetInfo, into: Path) -> None:
    """Download to `into / info.folder` and check torchvision's checksums."""
    import torchvision.datasets
    from torchvision.datasets.utils import download_and_extract_archive, download_url

    assert info.folder is not None
    assert info.torchvision is not None
    source = getattr(torchvision.datasets, info.torchvision)
    if hasattr(source, "resources"):  # MNIST and its relatives: separate gzipped files
        for name, checksum in source.resources:
            download_url(source.mirrors[0] + name, into / info.folder, name, checksum)
    else:
        download_and_extract_archive(source.url, into, md5=source.tgz_md5, remove_finished=True)


def download(info: DatasetInfo, data_root: str | None) -> Path:
    """Return the folder with the files of a data set; download them if no folder has them.

    Raises:
        UserError: no address is known, there is no network, a checksum is wrong, or the folder
            cannot be written.
    """
    if (folder := find(info, data_root)) is not None:
        return folder
    if info.torchvision is None or info.folder is None:
        raise UserError(f"{info.name} has no files to download; {info.remedy}.")
    root = user_path(data_root or "data", "data_root")
    target = root / info.folder
    deadline = socket.getdefaulttimeout()
    try:
        socket.setdefaulttimeout(_SECONDS_WITHOUT_DATA)  # urllib's own default is to wait forever
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{info.name}-", dir=root) as temporary:
            _fetch(info, Path(temporary))
            (Path(temporary) / info.folder).rename(target)
    except (OSError, RuntimeError) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()  # it keeps the connection open
        if (folder := find(info, data_root)) is not None:  # another process was faster
            return folder
        raise UserError(
            f"{missing(info, data_root)} The download to {shown(target)} failed: {error}"
        ) from error
    finally:
        socket.setdefaulttimeout(deadline)
    return target


def main(arguments: list[str]) -> int:
    """Download the data set that is named; return the exit code."""
    names = [text for text in arguments if "=" not in text]
    options = parse_options([text for text in arguments if "=" in text], OPTIONS)
    if len(names) != 1:
        raise UserError(f"{len(names)} data sets are named: name one, such as cifar10")
    if (info := CATALOG.get(names[0])) is None:
        raise UserError(f"there is no data set '{names[0]}'{nearest(names[0], CATALOG)}.")
    print(f"{info.name} is in {download(info, options['data_root'])}")
    return 0


if __name__ == "__main__":
    command(main, __doc__)
