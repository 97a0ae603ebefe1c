"""Train, validation and test: a stratified cut that depends only on the labels and a seed.

The official training set is put into an order whose every prefix holds the classes in their shares.
The beginning of the order is the validation set, and the training set follows. So a smaller
training set is part of a larger one, and neither the size of the training set nor the seed of a
training changes the validation set.
"""

from __future__ import annotations

import hashlib

import numpy as np

from harness import rng
from harness.data.types import Integers
from harness.schema import DatasetConfig


def stratified_order(labels: Integers, seed: int, stream: str) -> Integers:
    """Return all positions of `labels` in an order whose every prefix is stratified.

    A sample has a random rank r from 0 within its class of n samples. Samples are sorted by
    (r + 1/2) / n, and ties by their random key. So the number of samples of a class in a prefix is
    always close to its share, and a longer prefix contains the shorter ones. The second would not
    hold if the share of each class was rounded separately for each length.
    """
    ids = np.arange(len(labels), dtype=np.int64)
    high, low = rng.bits(seed, stream, 0, ids, 2).astype(np.uint64).T
    key = (high << np.uint64(32)) | low
    by_class = np.lexsort((key, labels))
    counts = np.bincount(labels)
    class_start = np.cumsum(counts) - counts
    sorted_labels = labels[by_class]
    position = np.empty(len(labels), dtype=np.float64)
    position[by_class] = (ids - class_start[sorted_labels] + 0.5) / counts[sorted_labels]
    order: Integers = np.lexsort((key, position))
    return order


def cut(
    config: DatasetConfig, train_labels: Integers, test_labels: Integers
) -> tuple[Integers, Integers, Integers]:
    """Return the ids of train, validation and test: ascending positions in the official sets.

    The first two are cut from the official training set and share no id. Without `train_size` or
    `test_size` in the config, all remaining images are used. `catalog.misfits` checks the sizes.
    """
    order = stratified_order(train_labels, config.split_seed, "split.train")
    validation, rest = order[: config.validation_size], order[config.validation_size :]
    test = stratified_order(test_labels, config.split_seed, "split.test")[: config.test_size]
    return np.sort(rest[: config.train_size]), np.sort(validation), np.sort(test)


def split_hash(train: Integers, validation: Integers, test: Integers) -> str:
    """Return 16 hex digits of the SHA-256 over the ids of the three splits, in this order."""
    digest = hashlib.sha256()
    for ids in (train, validation, test):
        digest.update(len(ids).to_bytes(8, "little"))
        digest.update(ids.astype("<i8").tobytes())
    return digest.hexdigest()[:16]
