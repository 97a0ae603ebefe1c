"""Read CIFAR-10 and CIFAR-100 (Krizhevsky 2009): 32x32 colour images in Python pickles.

A pickle can run code, and the files may come from anyone. So the unpickler here builds only arrays
and basic types, and refuses everything else.
"""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from numpy._core.multiarray import _reconstruct

from harness.data.catalog import DatasetInfo, read_file, shown
from harness.data.types import Bytes, Integers, Official
from harness.errors import UserError

# The names in the pickle of an array: those of NumPy 1, as in the published files, and of NumPy 2.
_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
}


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which no CIFAR file has")
        return _ALLOWED[module, name]


def _read_batch(folder: Path, name: str, classes: int) -> tuple[Bytes, Integers]:
    """Return the images [n, 3, 32, 32] and the labels [n] of one file.

    Raises:
        UserError: the file is damaged, is not a CIFAR batch, or names anything but arrays.
    """
    path, content = read_file(folder, name)
    try:
        batch = _ArraysOnly(io.BytesIO(content), encoding="latin1").load()
        images = batch["data"]
        labels = np.asarray(batch["fine_labels" if classes == 100 else "labels"])
        if not isinstance(images, np.ndarray) or images.dtype != np.uint8:
            raise ValueError("its images are not bytes")
        if labels.dtype.kind not in "iu" or labels.shape != images.shape[:1]:
            raise ValueError("its labels are not one integer for each image")
        return images.reshape(-1, 3, 32, 32), labels.astype(np.int64)
    except Exception as error:  # reading a damaged pickle can raise almost anything
        raise UserError(
            f"{shown(path)} is not a readable CIFAR file ({error or type(error).__name__}); "
            "replace the file."
        ) from error


def read(folder: Path | None, info: DatasetInfo) -> Official:
    """Return the official sets. The last of the batch files in `folder` is the test set."""
    assert folder is not None, "the catalog gives this data set a folder"
    *train, test = [_read_batch(folder, name, info.num_classes) for name in info.files]
    return Official(
        np.concatenate([images for images, _ in train]),
        np.concatenate([labels for _, labels in train]),
        *test,
    )
