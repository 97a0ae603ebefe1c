"""Batches of the resident loader: their order, the parts of ranks, resumption and evaluation."""

import itertools

import numpy as np
import pytest
import torch

from harness.data.datasets import load
from harness.data.loader import make_loader
from harness.errors import UserError
from harness.run_schema import RunConfig
from harness.schema import DatasetConfig

CPU = torch.device("cpu")
DATASET = load(DatasetConfig(name="digits", validation_size=203, train_size=250, test_size=11))


def loaders(world_size, batch_size=24):
    return [
        make_loader(DATASET, RunConfig(), batch_size, rank, world_size, CPU)
        for rank in range(world_size)
    ]


def ids(batches):
    return [batch.ids.tolist() for batch in batches]


def joined(lists):
    return list(itertools.chain.from_iterable(lists))


def test_a_batch_holds_the_images_and_labels_of_its_ids():
    (loader,) = loaders(1)
    for batch in loader.epoch(seed=3, epoch=1):
        positions = np.searchsorted(DATASET.train.ids, batch.ids)
        assert np.array_equal(DATASET.train.ids[positions], batch.ids)
        assert np.array_equal(batch.images.numpy(), DATASET.train.images[positions])
        assert np.array_equal(batch.labels.numpy(), DATASET.train.labels[positions])
        assert (batch.images.dtype, batch.labels.dtype) == (torch.uint8, torch.int64)


def test_an_epoch_has_each_image_once_at_most_and_only_full_batches():
    (loader,) = loaders(1)
    seen = ids(loader.epoch(seed=0, epoch=0))
    assert [len(batch) for batch in seen] == [24] * loader.steps_per_epoch == [24] * 10
    flat = joined(seen)
    assert len(set(flat)) == len(flat)
    assert set(flat) <= set(DATASET.train.ids.tolist())


def test_the_order_depends_only_on_epoch_and_seed():
    (loader,) = loaders(1)
    orders = {str(ids(loader.epoch(seed, epoch))) for seed in (0, 1) for epoch in (0, 1)}
    assert len(orders) == 4
    assert ids(loader.epoch(1, 1)) == ids(loaders(1)[0].epoch(1, 1))


@pytest.mark.parametrize("world_size", [2, 3, 8])
def test_ranks_share_the_batch_that_one_process_would_see(world_size):
    (alone,) = loaders(1)
    parts = [ids(loader.epoch(5, 2)) for loader in loaders(world_size)]
    together = [joined(shares) for shares in zip(*parts, strict=True)]
    assert together == ids(alone.epoch(5, 2))


def test_a_resumed_epoch_continues_with_the_next_batch():
    for loader in loaders(2):
        whole = ids(loader.epoch(0, 3))
        for start in (0, 1, 9, 10):
            assert ids(loader.epoch(0, 3, start_step=start)) == whole[start:]


@pytest.mark.parametrize("world_size", [1, 2, 3, 16])
@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_evaluation_sees_each_example_once_in_order(world_size, split):
    part = getattr(DATASET, split)
    batches = [b for loader in loaders(world_size, 48) for b in loader.evaluate(split, 10)]
    assert np.array_equal(np.concatenate([batch.ids for batch in batches]), part.ids)
    assert np.array_equal(torch.cat([batch.images for batch in batches]).numpy(), part.images)
    assert np.array_equal(torch.cat([batch.labels for batch in batches]).numpy(), part.labels)
    assert max(len(batch.ids) for batch in batches) <= 10


def test_fixed_batches_are_full_and_the_same_on_every_rank():
    alone, *ranks = loaders(1) + loaders(3)
    expected = ids(alone.fixed(100, 30))
    assert [len(batch) for batch in expected] == [30, 30, 30]
    assert len(set(joined(expected))) == 90
    assert joined(expected) != sorted(joined(expected)), "files may be sorted by class"
    assert all(ids(loader.fixed(100, 30)) == expected for loader in ranks)
    assert [len(batch) for batch in ids(alone.fixed(20, 30))] == [20]
    assert [len(batch) for batch in ids(alone.fixed(10_000, 250))] == [250]


def test_a_batch_that_cannot_be_shared_or_filled_is_refused():
    with pytest.raises(UserError, match=r"recipe\.batch_size 25 .* 2 processes"):
        loaders(2, batch_size=25)
    with pytest.raises(UserError, match=r"recipe\.batch_size 256 .* 250 images"):
        loaders(1, batch_size=256)
