"""Optical digits (Alpaydin and Kaynak 1998) as scikit-learn ships them: 1,797 images of 8x8.

Too small for a result, right for a test. The set has no official test part, so one is defined
here: a fixed stratified fifth. A sample's id is its position in the part it belongs to.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np

from harness.data.catalog import DatasetInfo
from harness.data.official import Official
from harness.data.splits import stratified_order


def read(folder: Path | None, info: DatasetInfo) -> Official:
    """The two parts; grey levels 0..16 become 0..255."""
    values = np.loadtxt(_file(), np.int64, delimiter=",")  # 64 grey levels and the digit
    images = np.rint(values[:, :-1] * (255 / 16)).astype(np.uint8).reshape(-1, 1, 8, 8)
    labels = values[:, -1]
    order = stratified_order(labels, seed=0, stream="digits.test")
    test, train = np.sort(order[: info.test_size]), np.sort(order[info.test_size :])
    return Official(images[train], labels[train], images[test], labels[test])


def _file() -> Path:
    """Read as it lies there: importing scikit-learn takes longer than most tests train."""
    package = importlib.util.find_spec("sklearn")
    origin = None if package is None else package.origin
    assert origin is not None  # the catalog has looked
    return Path(origin).parent / "datasets/data/digits.csv.gz"
