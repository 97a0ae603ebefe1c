"""Random numbers as a pure function of (seed, stream, epoch, sample id).

    uniform(seed=0, stream="flip", epoch=3, indices=np.array([17, 4]), draws=1)

The generator is Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC
2011). It encrypts a counter into four random words of 32 bits, so each draw can be computed without
the others. The counter is (sample id, epoch, block), and the key is a hash of (seed, stream). So
the draws of a sample do not depend on the batch, the rank, the gang or the point of resumption, and
no state of a generator has to be saved.

A stream is a name such as "order" or "flip". Each purpose has its own stream.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]

_MULTIPLIERS = np.array([[0xD2511F53], [0xCD9E8D57]], dtype=np.uint64)
_WEYL = np.array([0x9E3779B9, 0xBB67AE85], dtype=np.uint32)
_ROUNDS = np.arange(10, dtype=np.uint32)[:, None]
_LOW = np.uint64(0xFFFFFFFF)
_32 = np.uint64(32)


def philox4x32(counter: NDArray[np.uint32], key: tuple[int, int]) -> NDArray[np.uint32]:
    """Return the random words of counters [4, ...] of 32-bit words, in the same shape.

    Words 0 and 2 are one array (`even`), and words 1 and 3 another (`odd`), because the number of
    NumPy calls determines the time for a small batch.
    """
    even = counter[0::2].astype(np.uint32).reshape(2, -1)
    odd = counter[1::2].astype(np.uint32).reshape(2, -1)
    for keys in _ROUNDS * _WEYL + np.array(key, dtype=np.uint32):  # the key of each round
        product = np.multiply(even, _MULTIPLIERS, dtype="<u8").view("<u4")  # low word, high word
        low, high = product[::-1, 0::2], product[::-1, 1::2]
        even, odd = high ^ odd ^ keys[:, None], low
    return np.stack([even[0], odd[0], even[1], odd[1]]).reshape(counter.shape)


def derive(seed: int, stream: str) -> int:
    """Return a 63-bit seed for a generator of another library (`torch.manual_seed`)."""
    digest = hashlib.sha256(f"{seed}:{stream}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def bits(seed: int, stream: str, epoch: int, indices: Ids, draws: int) -> NDArray[np.uint32]:
    """Return random words [N, draws] for sample ids `indices` [N].

    The first draws do not change when `draws` grows.
    """
    digest = hashlib.sha256(f"{seed}:{stream}".encode()).digest()
    # `derive` uses bytes 0 to 7.
    key = (int.from_bytes(digest[8:12], "little"), int.from_bytes(digest[12:16], "little"))
    ids = np.asarray(indices, dtype=np.int64).astype(np.uint64)[:, None]
    blocks = -(-draws // 4)
    counter = np.empty((4, len(ids), blocks), dtype=np.uint32)
    counter[0], counter[1], counter[2], counter[3] = ids & _LOW, ids >> _32, epoch, range(blocks)
    words = np.moveaxis(philox4x32(counter, key), 0, -1)
    return words.reshape(len(ids), 4 * blocks)[:, :draws]


def uniform(seed: int, stream: str, epoch: int, indices: Ids, draws: int) -> NDArray[np.float64]:
    """Return uniform numbers [N, draws] in [0, 1), multiples of 2^-32."""
    return bits(seed, stream, epoch, indices, draws).astype(np.float64) * 2.0**-32


def normal(seed: int, stream: str, epoch: int, indices: Ids, draws: int) -> NDArray[np.float64]:
    """Return standard normal numbers [N, draws] (Box and Muller 1958), from two words each."""
    return box_muller(bits(seed, stream, epoch, indices, 2 * draws))


def box_muller(words: NDArray[np.uint32]) -> NDArray[np.float64]:
    """Return standard normal numbers [..., D] from random words [..., 2 D]."""
    radius = np.sqrt(-2.0 * np.log((words[..., 0::2] + 1.0) * 2.0**-32))
    angle = 2.0 * np.pi * 2.0**-32 * words[..., 1::2]
    return np.asarray(radius * np.cos(angle), dtype=np.float64)


def integers(seed: int, stream: str, epoch: int, indices: Ids, draws: int, high: int) -> Ids:
    """Return integers [N, draws] in [0, high), for `high` up to 2^31.

    Each integer has probability 1 / high, with a relative error of at most high / 2^32.
    """
    return scale(bits(seed, stream, epoch, indices, draws), high)


def scale(words: NDArray[np.uint32], high: int) -> Ids:
    """Return integers in [0, high) from random words of any shape (Lemire's multiply-shift)."""
    return ((words.astype(np.uint64) * np.uint64(high)) >> _32).astype(np.int64)


def permutation(seed: int, stream: str, epoch: int, n: int) -> Ids:
    """Return a random order [n] of 0..n-1: positions sorted by a random key of 64 bits."""
    words = bits(seed, stream, epoch, np.arange(n, dtype=np.int64), 2).astype(np.uint64)
    return np.argsort(words[:, 0] << _32 | words[:, 1], kind="stable").astype(np.int64)
