"""What a data set's reader hands over: the official images, whole and in their official order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Official:
    """Images: uint8 [N, C, H, W], C being 1 or 3. Labels: int64 [N], from 0."""

    train_images: Bytes
    train_labels: Integers
    test_images: Bytes
    test_labels: Integers
