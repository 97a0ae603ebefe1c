"""Choose the loader of one rank.

The ids in a batch are a pure function of (seed, epoch, step), for every loader and any number of
ranks. Loaders differ in the files that they read, in speed, and in the filter of their resize.
"""

from __future__ import annotations

import numpy as np
import torch

from harness.data.node import usable_cores
from harness.data.resident import Resident
from harness.data.streamed import Streamed
from harness.data.types import Dataset, Loader
from harness.errors import UserError
from harness.run_schema import RunConfig


def make_loader(
    dataset: Dataset,
    run: RunConfig,
    batch_size: int,
    rank: int,
    world_size: int,
    device: torch.device,
    epochs: int = 1,
) -> Loader:
    """Return the loader of one rank. `batch_size` is global, `epochs` the length of the training.

    Raises:
        UserError: a batch that the ranks cannot share equally, or larger than the training set.
    """
    if batch_size % world_size:
        raise UserError(
            f"recipe.batch_size {batch_size} cannot be shared equally by {world_size} processes; "
            f"choose a multiple of {world_size}, or another run.processes."
        )
    if batch_size > len(dataset.train):
        raise UserError(
            f"recipe.batch_size {batch_size} is larger than the training set, which has "
            f"{len(dataset.train)} images, so an epoch would have no steps; choose a smaller one."
        )
    if isinstance(dataset.train.images, np.ndarray):
        return Resident(dataset, batch_size, rank, world_size, device)
    threads = run.loader_threads or usable_cores()
    return Streamed(dataset, batch_size, rank, world_size, device, threads, epochs)
