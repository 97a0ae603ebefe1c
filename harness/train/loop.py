"""The training loop: one stream of batches, and a gang of stages that each learn from it.

Every rank calls `train_gang` with the same gang. What a stage sees is a pure function of its
config, so a stage ends in the same bits alone or in a gang, unbroken or resumed at any step.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from harness.data.datasets import load
from harness.data.loader import make_loader
from harness.data.types import Dataset, Loader
from harness.errors import UserError
from harness.schema import RunConfig, StageConfig
from harness.store import provenance
from harness.store.claims import ClaimLost
from harness.sweep.plan import stream_key
from harness.train import trackers
from harness.train.distributed import World
from harness.train.stage import Stage

BEAT_SECONDS = 10.0
LOADING_SECONDS = 1800.0


@dataclass(frozen=True)
class Member:
    """One stage of a gang: its config, its folder in the store, and its parent's."""

    stage_id: str
    config: StageConfig
    folder: Path
    parent_folder: Path | None
    store: Path | None = None  # where a teacher is looked for; None: the store of `folder`

    @property
    def root(self) -> Path:
        """The store."""
        return self.store or self.folder.parents[2]


@dataclass(frozen=True)
class Outcome:
    """How training a stage ended; `result` and `correct` (per split) where it has one."""

    stage_id: str
    status: str  # "done", "diverged", "stopped"
    result: dict[str, Any] | None = None
    correct: dict[str, NDArray[np.bool_]] | None = None


class Pulse:
    """Calls `heartbeat` on rank 0, and keeps a lost claim until all ranks can hear of it.

    If rank 0 left a step on its own, the others would wait in their next collective.
    """

    def __init__(self, world: World, heartbeat: Callable[[], None]):
        self.world, self.heartbeat = world, heartbeat
        self.lost: ClaimLost | None = None

    def __call__(self) -> None:
        """One heartbeat."""
        if self.world.rank == 0 and self.lost is None:
            try:
                self.heartbeat()
            except ClaimLost as lost:
                self.lost = lost

    @contextlib.contextmanager
    def going_on(self) -> Iterator[None]:
        """Meanwhile a thread calls it: to read a whole data set takes minutes, without a step.

        For `LOADING_SECONDS` at most: what hangs for longer loses its claims.
        """
        ended = threading.Event()

        def beat() -> None:
            end = time.monotonic() + LOADING_SECONDS
            while not ended.wait(BEAT_SECONDS) and time.monotonic() < end:
                self()

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


class Lanes:
    """CUDA streams for stages that step side by side; none on a CPU, or unasked.

    Entering, each waits for what the caller's stream was told so far (the batch has come); leaving,
    that stream waits for all of them. So whatever the caller frees or reads is done with.
    """

    def __init__(self, members: int, run: RunConfig, world: World):
        count = self.wanted(members, run, world)
        self.streams = [torch.cuda.Stream(world.device) for _ in range(count)]

    @staticmethod
    def wanted(members: int, run: RunConfig, world: World) -> int:
        """How many streams so many members get: one each, or none."""
        one_gpu = world.device.type == "cuda" and world.size == 1
        return members if run.streams and one_gpu and members > 1 else 0

    def __enter__(self) -> None:
        for stream in self.streams:
            stream.wait_stream(torch.cuda.current_stream())

    def __exit__(self, *_: object) -> None:
        for stream in self.streams:
            torch.cuda.current_stream().wait_stream(stream)

    def of(self, number: int) -> contextlib.AbstractContextManager[Any]:
        """Work in here goes to the stream of this number."""
        return torch.cuda.stream(self.streams[number]) if self.streams else contextlib.nullcontext()


def train_gang(
    members: Sequence[Member],
    run: RunConfig,
    world: World,
    should_stop: Callable[[], bool],
    heartbeat: Callable[[], None],
) -> list[Outcome]:
    """Train every member to its end, or until any rank's `should_stop`.

    `heartbeat` is called on rank 0 at every step. Checkpoints are written every
    `run.checkpoint_seconds` of rank 0's clock, when stopping and at the end, for all members.

    Raises:
        UserError: members that do not share data, seed, batch size and length; data that is not
            there; a checkpoint that cannot go on under this `run`.
        Damaged: a parent's weights.
        ClaimLost: from `heartbeat`, on rank 0; the other ranks return "stopped".
    """
    begun = time.monotonic()
    first = members[0].config
    for member in members:
        if stream_key(member.config) != stream_key(first):
            raise UserError(
                f"stages {members[0].stage_id} and {member.stage_id} cannot train side by side: "
                "a gang shares data, seed, batch size and epochs."
            )
    if said := trackers.missing(run.tracker):
        raise UserError(said)  # on every rank, before any of them waits for another
    pulse = Pulse(world, heartbeat)
    with pulse.going_on():
        dataset = load(first.dataset, run.data_root, run.loader, run.data_cache)
        loader = make_loader(
            dataset,
            run,
            first.recipe.batch_size,
            world.rank,
            world.size,
            world.device,
            first.recipe.epochs,
        )
    stages: list[Stage] = []
    try:
        if world.rank == 0:
            if loader.name != "resident":
                print(f"loader {dataset.why}", flush=True)
            for member in members:
                provenance.record(member.folder, facts(run, world, loader, dataset))
        for member in members:
            stages.append(Stage(member, dataset, loader, run, world, pulse))
        for stage in stages:
            stage.besides = (time.monotonic() - begun) / len(stages)
        finished = _train(stages, loader, run, world, should_stop, pulse)
        outcomes = [_outcome(stage, finished, pulse) for stage in stages]
        if pulse.lost is not None:
            raise pulse.lost
        return outcomes
    finally:
        for stage in stages:
            stage.close()
        loader.close()


def facts(run: RunConfig, world: World, loader: Loader, dataset: Dataset) -> dict[str, Any]:
    """What is recorded beside a result: it may move low bits, and is not part of the identity."""
    cuda = world.device.type == "cuda"
    return {
        "engine": run.engine,
        "zero_stage": run.zero_stage if run.engine == "deepspeed" else 0,
        "world_size": world.size,
        "micro_batch_size": run.micro_batch_size,
        "loader": loader.name,
        "stored": dataset.stored,
        "split_hash": dataset.split_hash,
        "memory_format": "channels_last" if run.channels_last else "contiguous",
        "device": torch.cuda.get_device_name(world.device) if cuda else "cpu",
        "threads": None if cuda else run.threads,
        "deterministic": run.deterministic or not cuda,
    }


def _train(
    stages: list[Stage],
    loader: Loader,
    run: RunConfig,
    world: World,
    should_stop: Callable[[], bool],
    pulse: Pulse,
) -> bool:
    """All steps that are left; False when stopped, or the claim was lost, before the end."""
    config = stages[0].config
    per_epoch = loader.steps_per_epoch
    lanes = Lanes(len(stages), run, world)
    step = min(stage.step for stage in stages)
    saved = clock = time.monotonic()
    for epoch in range(step // per_epoch, config.recipe.epochs):
        for batch in loader.epoch(config.seed, epoch, step - epoch * per_epoch):
            # a stage that was saved later waits here for its turn
            active = [stage for stage in stages if stage.step == step and not stage.diverged]
            with lanes:
                for stage in active:
                    with lanes.of(stages.index(stage)):
                        stage.train_on(batch, epoch)
            step += 1
            for stage in active:
                if step % per_epoch == 0:
                    stage.end_epoch(epoch)
                stage.seconds += (time.monotonic() - clock) / len(active)
            clock = time.monotonic()
            pulse()
            due = step == stages[0].total_steps or clock - saved >= run.checkpoint_seconds
            stopping, saving, lost = world.any(
                should_stop(), world.rank == 0 and due, pulse.lost is not None
            )
            if lost:
                return False
            if stopping or saving:
                for stage in active:
                    stage.save()
                saved = time.monotonic()
            if stopping:
                return False
        if all(stage.diverged for stage in stages):
            break
    return True


def _outcome(stage: Stage, finished: bool, pulse: Pulse) -> Outcome:
    """Evaluate, once and at the end, and write the final weights."""
    if stage.diverged:
        return Outcome(stage.id, "diverged", {**stage.summary(), "train": {"loss": None}})
    if not finished:
        return Outcome(stage.id, "stopped")
    begun = time.monotonic()
    validation = stage.evaluate("validation")
    stage.tracker.log(
        {"step": stage.step, "val_top1": validation.top1, "val_loss": validation.loss}
    )
    test = stage.evaluate("test")
    if stage.world.any(pulse.lost is not None)[0]:
        return Outcome(stage.id, "stopped")
    weights = stage.write_final()
    stage.besides += time.monotonic() - begun
    result = {
        "val": validation.summary(),
        "test": test.summary(),
        "train": {"loss": stage.last_loss},
        "weights_sha256": weights,
        **stage.summary(),
    }
    return Outcome(
        stage.id, "done", result, {"validation": validation.correct, "test": test.correct}
    )
