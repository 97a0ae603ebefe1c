"""Read Fashion-MNIST (Xiao et al. 2017): 28x28 grey images in MNIST's IDX format."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from harness.data.catalog import DatasetInfo, read_file, shown
from harness.data.types import Bytes, Official
from harness.errors import UserError

_UNSIGNED_BYTE = 0x08  # the code of this type in an IDX file


def read_idx(folder: Path, name: str) -> Bytes:
    """Return the array in an IDX file: two zero bytes, type, rank, big-endian sizes, entries.

    Raises:
        UserError: the file is truncated, is not gzip, or is not an IDX file of bytes.
    """
    path, raw = read_file(folder, name)
    if len(raw) < 4 or raw[:3] != bytes((0, 0, _UNSIGNED_BYTE)) or len(raw) < 4 + 4 * raw[3]:
        raise UserError(f"{shown(path)} is not an IDX file of bytes; replace the file.")
    sizes = np.frombuffer(raw, ">u4", count=raw[3], offset=4).tolist()
    start = 4 + 4 * raw[3]
    if len(raw) - start != math.prod(sizes):
        raise UserError(
            f"{shown(path)} holds {len(raw) - start} bytes of data, and its header states "
            f"{math.prod(sizes)}; replace the file."
        )
    return np.frombuffer(raw, np.uint8, offset=start).reshape(sizes)


def read(folder: Path | None, info: DatasetInfo) -> Official:
    """Return the official sets from the four files in `folder`."""
    assert folder is not None, "the catalog gives this data set a folder"
    train_images, train_labels, test_images, test_labels = (
        read_idx(folder, name) for name in info.files
    )
    return Official(
        train_images[:, None],
        train_labels.astype(np.int64),
        test_images[:, None],
        test_labels.astype(np.int64),
    )
