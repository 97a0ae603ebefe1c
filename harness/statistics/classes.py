"""Scores of a classifier beyond its accuracy: its calibration, and how classes differ."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BINS = 15  # of confidence, as in Guo et al. 2017
Integers = NDArray[np.int64]
Shares = NDArray[np.float64]


def calibration_error(confidence: Shares, correct: NDArray[np.bool_]) -> float:
    """Return the expected calibration error, a share in [0, 1] (Guo et al. 2017, equation 3).

    Confidences [N] in (0, 1] are the probabilities of the predicted classes. They are sorted into
    `BINS` bins of equal width, each with its upper end; the error is the mean over examples of the
    distance between accuracy and mean confidence of the example's bin.
    """
    bins = np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)
    surplus = np.bincount(bins, weights=confidence - correct, minlength=BINS)
    return float(np.abs(surplus).sum() / len(confidence))


@dataclass(frozen=True)
class ClassCounts:
    """For each class the number of its examples in a split and of those classified correctly."""

    correct: Integers
    images: Integers

    @classmethod
    def of(cls, labels: Integers, correct: NDArray[np.bool_], num_classes: int) -> ClassCounts:
        """Return the counts for labels [N] and whether each example was classified correctly."""
        return cls(
            np.bincount(labels[correct], minlength=num_classes),
            np.bincount(labels, minlength=num_classes),
        )

    @property
    def accuracies(self) -> Shares:
        """Accuracy of each class, a share; NaN for a class without examples."""
        with np.errstate(invalid="ignore"):
            return np.asarray(self.correct / self.images, dtype=np.float64)

    @property
    def worst(self) -> float:
        """The lowest accuracy of a class that has examples."""
        return float(np.nanmin(self.accuracies))

    @property
    def spread(self) -> float:
        """The standard deviation of the accuracies over the classes that have examples."""
        return float(np.nanstd(self.accuracies))
