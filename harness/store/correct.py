"""`correct.npz` of a stage: which examples it classifies correctly, and counts for each class.

For each split it has a bit per example (`validation`, `validation_count`), and since classes are
counted also `validation_class_correct` and `validation_class_images`.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.files import Damaged
from harness.statistics import ClassCounts
from harness.store.records import LONGEST, read_bytes

Bits = NDArray[np.bool_]


def packed(correct: Mapping[str, Bits], classes: Mapping[str, ClassCounts] | None = None) -> bytes:
    """Return the bytes of the file: for each split (or other name) its bits and class counts."""
    arrays: dict[str, Any] = {}
    for name, bits in correct.items():
        arrays[name] = np.packbits(bits)
        arrays[f"{name}_count"] = np.array(len(bits))
    for name, counts in (classes or {}).items():
        arrays[f"{name}_class_correct"] = counts.correct.astype(np.int32)
        arrays[f"{name}_class_images"] = counts.images.astype(np.int32)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def read(path: Path, sha256: str) -> dict[str, NDArray[Any]]:
    """Return the arrays of a file that `packed` made.

    Raises FileNotFoundError. Raises Damaged if its SHA-256 is not the recorded one.
    """
    content = read_bytes(path, longest=LONGEST)
    if hashlib.sha256(content).hexdigest() != sha256:
        raise Damaged(f"{path} was changed after it was written: its digest does not match")
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return dict(arrays)
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        raise Damaged(f"{path} is not a file of arrays ({error})") from error


def bits_of(arrays: Mapping[str, NDArray[Any]], name: str) -> Bits:
    """Return the bits [N] of a split."""
    return np.unpackbits(arrays[name], count=int(arrays[f"{name}_count"])).astype(bool)


def counts_of(arrays: Mapping[str, NDArray[Any]], name: str) -> ClassCounts | None:
    """Return the class counts of a split, or None in a file that was written without them."""
    if f"{name}_class_images" not in arrays:
        return None
    correct, images = (arrays[f"{name}_class_{kind}"] for kind in ("correct", "images"))
    return ClassCounts(correct.astype(np.int64), images.astype(np.int64))
