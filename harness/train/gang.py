"""What a gang of stages consists of: its members, what they share, and how each of them ended."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.data.datasets import load
from harness.data.loader import make_loader
from harness.data.types import Dataset, Loader
from harness.run_schema import RunConfig
from harness.schema import StageConfig
from harness.statistics import ClassCounts
from harness.train.distributed import World


@dataclass(frozen=True)
class Member:
    """One stage of a gang: its id, its config and its folder in the store.

    `origin_folder` is that of the stage it starts from: its parent, or the one that it continues.
    """

    stage_id: str
    config: StageConfig
    folder: Path
    origin_folder: Path | None
    teacher_store: Path | None = None  # the store that holds the teacher; None: `store`
    targets: tuple[str, ...] = ()  # what the network is evaluated on at the end, beside its images

    @property
    def store(self) -> Path:
        """The store that `folder` lies in: STORE/stages/ab/abcdef0123456789."""
        return self.folder.parents[2]


@dataclass(frozen=True)
class Gang:
    """What all members of a gang share: data, settings of the run, ranks and heartbeat.

    `heartbeat` is called at every step and after every batch of an evaluation.
    """

    dataset: Dataset
    loader: Loader
    run: RunConfig
    world: World
    heartbeat: Callable[[], None]


def load_data(
    config: StageConfig, run: RunConfig, world: World, heartbeat: Callable[[], None]
) -> Gang:
    """Return a gang with the data set and the loader of its stages; `config` is that of one."""
    dataset = load(config.dataset, run.data_root, run.loader, run.data_cache)
    size, epochs = config.recipe.batch_size, config.recipe.epochs
    loader = make_loader(dataset, run, size, world.rank, world.size, world.device, epochs)
    return Gang(dataset, loader, run, world, heartbeat)


@dataclass(frozen=True)
class Evaluated:
    """The record of a network on a target, and its bits per example by name."""

    record: dict[str, Any]
    bits: dict[str, NDArray[np.bool_]]


@dataclass(frozen=True)
class Outcome:
    """How the training of a stage ended.

    `status` is "done", "diverged" or "stopped". A stopped stage has no `result`. Only a stage that
    is done has `correct`: for each split, which examples were classified correctly, bool [N]; and
    `classes`: the same counted for each class. `evaluations` has the records and bits of the
    member's targets, by their ids; they are missing if the job was stopped meanwhile.
    """

    stage_id: str
    status: str
    result: dict[str, Any] | None = None
    correct: dict[str, NDArray[np.bool_]] | None = None
    classes: dict[str, ClassCounts] | None = None
    evaluations: Mapping[str, Evaluated] = field(default_factory=dict)
