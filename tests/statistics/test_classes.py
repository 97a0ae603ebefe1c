"""Scores of classes and calibration against their definitions."""

import numpy as np
import pytest

from harness.statistics import ClassCounts, calibration_error


def test_calibration_error_of_known_confidences():
    # two bins: 4 examples at 0.9 of which 2 are correct, 6 at 0.5 of which 3 are correct
    confidence = np.array([0.9] * 4 + [0.5] * 6)
    correct = np.array([True, True, False, False] + [True, False] * 3)
    assert calibration_error(confidence, correct) == pytest.approx(0.4 * 0.4 + 0.6 * 0.0)


def test_a_confidence_at_the_end_of_a_bin_belongs_to_that_bin():
    ends = np.arange(1, 16) / 15
    correct = np.zeros(15, bool)
    correct[1::2] = True
    each_in_its_own_bin = np.abs(ends - correct).mean()
    assert calibration_error(ends, correct) == pytest.approx(each_in_its_own_bin)


def test_a_calibrated_classifier_has_almost_no_calibration_error():
    chance = np.random.default_rng(0)
    confidence = chance.uniform(0.1, 1.0, 200_000)
    correct = chance.uniform(size=200_000) < confidence
    assert calibration_error(confidence, correct) < 0.01


def test_worst_class_and_spread_leave_out_classes_without_examples():
    labels = np.array([0, 0, 0, 0, 1, 1, 3])
    correct = np.array([True, True, True, False, False, True, True])
    counts = ClassCounts.of(labels, correct, 5)
    assert counts.images.tolist() == [4, 2, 0, 1, 0]
    assert counts.worst == 0.5
    assert counts.spread == pytest.approx(np.std([0.75, 0.5, 1.0]))
