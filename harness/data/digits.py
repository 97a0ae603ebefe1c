"""Read the optical digits (Alpaydin and Kaynak 1998) of scikit-learn: 1,797 images of 8x8 pixels.

They are too few for results, but enough for tests. There is no official test set, so a fixed
stratified fifth of the images is the test set here. The id of a sample is its position in its set.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np

from harness.data.catalog import DatasetInfo
from harness.data.splits import stratified_order
from harness.data.types import Official


def read(folder: Path | None, info: DatasetInfo) -> Official:
    """Return the two sets. Grey levels from 0 to 16 are scaled to 0 to 255."""
    values = np.loadtxt(_file(), np.int64, delimiter=",")  # 64 grey levels and the digit
    images = np.rint(values[:, :-1] * (255 / 16)).astype(np.uint8).reshape(-1, 1, 8, 8)
    labels = values[:, -1]
    order = stratified_order(labels, seed=0, stream="digits.test")
    test, train = np.sort(order[: info.test_size]), np.sort(order[info.test_size :])
    return Official(images[train], labels[train], images[test], labels[test])


def _file() -> Path:
    """Return the path of the file in scikit-learn, without importing it, which takes seconds."""
    package = importlib.util.find_spec("sklearn")
    origin = None if package is None else package.origin
    assert origin is not None  # `catalog.missing` has checked it
    return Path(origin).parent / "datasets/data/digits.csv.gz"
