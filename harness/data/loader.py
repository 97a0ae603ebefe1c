"""The seam between data and training: what a loader gives, and which one a run takes.

Everything about which images come when is a pure function of (seed, epoch, step), whatever loader
serves it and on however many ranks; a loader only decides how fast.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch

from harness import rng
from harness.data.datasets import Dataset
from harness.data.official import Integers
from harness.errors import UserError
from harness.schema import RunConfig

SplitName = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class Batch:
    """Images: uint8 [n, 3, H, W] and labels: int64 [n] on the device; ids: int64 [n] on the host.

    Images may be a view of the loader's own memory: read only.
    """

    images: torch.Tensor
    labels: torch.Tensor
    ids: Integers


class Loader(Protocol):
    """Batches of one rank. `name` is recorded with a result."""

    name: str
    steps_per_epoch: int

    def epoch(self, seed: int, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        """This rank's share of each global batch of a training epoch, from `start_step` on."""

    def evaluate(self, split: SplitName, batch_size: int) -> Iterator[Batch]:
        """This rank's part of a split: over all ranks each example once, in a fixed order.

        `batch_size` is the rank's; the last batch may be smaller. A rank may get no batch.
        """

    def fixed(self, count: int, batch_size: int) -> Iterator[Batch]:
        """The same full batches of training images on every rank, for batch-norm statistics.

        `count` of them, or as many as there are, without the rest that fills no batch (unless
        that is all there is).
        """

    def close(self) -> None:
        """Give back memory, threads and files; the loader is of no use afterwards."""


def rank_part(length: int, rank: int, world_size: int) -> slice:
    """The rank-th of `world_size` contiguous parts whose lengths differ by one at most."""
    return slice(length * rank // world_size, length * (rank + 1) // world_size)


def training_order(seed: int, epoch: int, length: int, batch_size: int) -> Integers:
    """Positions in the training split by global batch [steps, batch_size]; the rest is dropped."""
    order = rng.permutation(seed, "order", epoch, length)
    steps = length // batch_size
    return order[: steps * batch_size].reshape(steps, batch_size)


def fixed_order(length: int, count: int, batch_size: int) -> Integers:
    """Positions for `Loader.fixed`, by batch; in a random order, because files may be by class."""
    order = rng.permutation(0, "fixed", 0, length)[:count]
    size = min(batch_size, len(order))
    full = len(order) // size
    return order[: full * size].reshape(full, size)


def make_loader(
    dataset: Dataset,
    run: RunConfig,
    batch_size: int,
    rank: int,
    world_size: int,
    device: torch.device,
    epochs: int = 1,
) -> Loader:
    """The loader of one rank; `batch_size` is global, `epochs` the length of the training.

    Raises:
        UserError: a batch that the ranks cannot share equally, or larger than the training set.
    """
    from harness.data.node import usable_cores
    from harness.data.resident import Resident
    from harness.data.streamed import Streamed

    if batch_size % world_size:
        raise UserError(
            f"recipe.batch_size {batch_size} cannot be shared equally by {world_size} processes; "
            f"choose a multiple of {world_size}, or another run.processes."
        )
    if batch_size > len(dataset.train):
        raise UserError(
            f"recipe.batch_size {batch_size} is more than the {len(dataset.train)} images of the "
            "training set, so an epoch would hold no step; make it smaller."
        )
    if isinstance(dataset.train.images, np.ndarray):
        return Resident(dataset, batch_size, rank, world_size, device)
    threads = run.loader_threads or usable_cores()
    return Streamed(dataset, batch_size, rank, world_size, device, threads, epochs)
