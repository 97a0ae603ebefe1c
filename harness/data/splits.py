"""Train, validation and test: a stratified cut that depends on nothing but the labels and a seed.

One order of the official training set serves both cuts. Every stretch of it holds the classes in
their shares, so the validation set is its beginning and the training set what follows: a smaller
training set is part of a larger one, and neither it nor the training seed moves the validation set.
"""

from __future__ import annotations

import hashlib

import numpy as np

from harness import rng
from harness.data.official import Integers


def stratified_order(labels: Integers, seed: int, stream: str) -> Integers:
    """All positions of `labels`, so ordered that every prefix is stratified.

    Within its class a sample has a keyed random rank r of n; samples are sorted by (r + 1/2) / n,
    and by the key where that ties. Hence a class is never far from its share of a prefix, and one
    prefix contains the shorter ones, which rounding each class's share by itself does not give.
    """
    ids = np.arange(len(labels), dtype=np.int64)
    high, low = rng.bits(seed, stream, 0, ids, 2).astype(np.uint64).T
    key = (high << np.uint64(32)) | low
    by_class = np.lexsort((key, labels))
    counts = np.bincount(labels)
    first = np.cumsum(counts) - counts
    of_class = labels[by_class]
    place = np.empty(len(labels), dtype=np.float64)
    place[by_class] = (ids - first[of_class] + 0.5) / counts[of_class]
    order: Integers = np.lexsort((key, place))
    return order


def cut(
    train_labels: Integers,
    test_labels: Integers,
    *,
    validation_size: int,
    train_size: int | None,
    test_size: int | None,
    seed: int,
) -> tuple[Integers, Integers, Integers]:
    """Ids (positions in the official sets, rising) of train, validation and test.

    The first two are cut from the official training set and share no id. Sizes are numbers of
    images; None means all that is left. They must fit (`catalog.check`).
    """
    order = stratified_order(train_labels, seed, "split.train")
    validation, rest = order[:validation_size], order[validation_size:]
    test = stratified_order(test_labels, seed, "split.test")[:test_size]
    return np.sort(rest[:train_size]), np.sort(validation), np.sort(test)


def split_hash(train: Integers, validation: Integers, test: Integers) -> str:
    """16 hex digits of the SHA-256 over the ids of the three parts, in this order."""
    digest = hashlib.sha256()
    for ids in (train, validation, test):
        digest.update(len(ids).to_bytes(8, "little"))
        digest.update(ids.astype("<i8").tobytes())
    return digest.hexdigest()[:16]
