"""Splits are stratified, nested and disjoint, and depend only on the labels and the seed."""

import itertools

import numpy as np
import pytest

from harness.data.splits import cut, split_hash, stratified_order
from harness.schema import DatasetConfig

RNG = np.random.default_rng(0)
TRAIN = RNG.choice(4, size=3000, p=[0.4, 0.3, 0.2, 0.1]).astype(np.int64)
TEST = RNG.choice(4, size=500, p=[0.4, 0.3, 0.2, 0.1]).astype(np.int64)
CONFIG = DatasetConfig(name="any", validation_size=300, train_size=800, test_size=100)


def cut_with(**changes):
    return cut(CONFIG.model_copy(update=changes), TRAIN, TEST)


@pytest.mark.parametrize("seed", [0, 1, 7])
def test_every_split_holds_the_classes_in_their_shares(seed):
    train, validation, test = cut_with(split_seed=seed)
    assert (len(train), len(validation), len(test)) == (800, 300, 100)
    for ids, labels in ((train, TRAIN), (validation, TRAIN), (test, TEST)):
        share = np.bincount(labels) / len(labels) * len(ids)
        assert np.abs(np.bincount(labels[ids]) - share).max() <= 1.5


def test_train_and_validation_share_no_image_and_together_have_all():
    train, validation, test = cut_with(train_size=None, test_size=None)
    assert np.array_equal(np.sort(np.concatenate([train, validation])), np.arange(len(TRAIN)))
    assert np.array_equal(test, np.arange(len(TEST)))


def test_a_smaller_training_set_is_part_of_a_larger_one_with_the_same_validation():
    cuts = [cut_with(train_size=size) for size in (1, 57, 800, 801, None)]
    for (small, validation, _), (large, other, _) in itertools.pairwise(cuts):
        assert set(small) < set(large)
        assert np.array_equal(validation, other)


def test_every_prefix_of_equal_classes_is_balanced():
    labels = np.repeat(np.arange(10), 30)
    order = stratified_order(labels, seed=3, stream="any")
    for length in range(1, 301):
        counts = np.bincount(labels[order[:length]], minlength=10)
        assert counts.max() - counts.min() <= 1


def test_the_cut_is_fixed_for_a_seed_and_random_between_seeds():
    first, second = cut_with(split_seed=0), cut_with(split_seed=1)
    assert split_hash(*first) == split_hash(*cut_with(split_seed=0)) != split_hash(*second)
    overlap = len(set(first[1]) & set(second[1]))
    assert overlap < 60  # 30 of the 300 ids are expected by chance


def test_the_hash_depends_on_each_split_and_their_order():
    train, validation, test = cut_with()
    hashes = {
        split_hash(train, validation, test),
        split_hash(train[1:], validation, test),
        split_hash(train, validation[1:], test),
        split_hash(train, validation, test[1:]),
        split_hash(validation, train, test),
    }
    assert len(hashes) == 5
    assert all(len(value) == 16 and int(value, 16) >= 0 for value in hashes)
