"""The generator: published vectors, independence from the batch, and the promised distributions."""

import numpy as np
import pytest
from scipy import stats

from harness import rng

IDS = np.arange(20_000, dtype=np.int64)

# Random123's kat_vectors, `philox4x32 10`: counter, key, result
VECTORS = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    (
        (0xFFFFFFFF,) * 4,
        (0xFFFFFFFF, 0xFFFFFFFF),
        (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
    ),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "expected"), VECTORS)
def test_philox_gives_the_published_vectors(counter, key, expected):
    result = rng.philox4x32(np.array(counter, dtype=np.uint64)[:, None], key)
    assert tuple(int(word) for word in result[:, 0]) == expected


def test_a_sample_draws_the_same_alone_in_any_order_and_with_more_draws():
    whole = rng.bits(3, "policy", 5, IDS[:100], 7)
    shuffled = np.random.default_rng(0).permutation(100)
    assert np.array_equal(rng.bits(3, "policy", 5, IDS[:100][shuffled], 7), whole[shuffled])
    assert np.array_equal(rng.bits(3, "policy", 5, IDS[41:42], 7), whole[41:42])
    assert np.array_equal(rng.bits(3, "policy", 5, IDS[:100], 19)[:, :7], whole)
    assert rng.bits(3, "policy", 5, IDS[:0], 7).shape == (0, 7)


def test_seed_stream_and_epoch_each_change_every_draw():
    base = rng.bits(0, "flip", 0, IDS, 1)
    for other in (
        rng.bits(1, "flip", 0, IDS, 1),
        rng.bits(0, "crop", 0, IDS, 1),
        rng.bits(0, "flip", 1, IDS, 1),
    ):
        assert (base == other).mean() < 1e-3
    assert len({rng.derive(s, t) for s in range(50) for t in ("init", "data")}) == 100
    assert 0 <= rng.derive(0, "init") < 2**63


def test_a_large_id_is_not_cut_to_32_bits():
    ids = np.array([1, 1 + 2**32], dtype=np.int64)
    first, second = rng.bits(0, "x", 0, ids, 1)[:, 0]
    assert first != second


def test_distributions():
    draws = rng.uniform(0, "x", 0, IDS, 3)
    assert draws.min() >= 0.0
    assert draws.max() < 1.0
    assert stats.kstest(draws.ravel(), "uniform").pvalue > 0.01
    assert stats.kstest(rng.normal(0, "x", 0, IDS, 3).ravel(), "norm").pvalue > 0.01
    assert np.abs(np.corrcoef(rng.normal(0, "x", 0, IDS, 3).T) - np.eye(3)).max() < 0.03
    counts = np.bincount(rng.integers(0, "x", 0, IDS, 1, 14)[:, 0], minlength=14)
    assert len(counts) == 14
    assert stats.chisquare(counts).pvalue > 0.01


def test_permutation_is_one_and_differs_between_epochs():
    first, second = rng.permutation(0, "order", 0, 5000), rng.permutation(0, "order", 1, 5000)
    assert np.array_equal(np.sort(first), np.arange(5000))
    assert (first == second).mean() < 0.01
    assert abs(np.corrcoef(first, np.arange(5000))[0, 1]) < 0.05
    assert np.array_equal(first, rng.permutation(0, "order", 0, 5000))


def test_global_random_state_is_left_alone():
    np.random.seed(1)
    before = np.random.get_state()[1].copy()
    rng.normal(0, "x", 0, IDS[:10], 1)
    rng.permutation(0, "x", 0, 10)
    assert np.array_equal(before, np.random.get_state()[1])
