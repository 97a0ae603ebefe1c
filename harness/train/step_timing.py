"""A short measurement of one size: time of a step, time waited for data, memory."""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Literal

import torch

from harness.data import node
from harness.data.crops import side_at
from harness.data.datasets import load
from harness.data.loader import make_loader
from harness.data.types import Loader
from harness.errors import UserError
from harness.schema import DatasetConfig, RunConfig, StageConfig
from harness.store.identity import stage_id
from harness.sweep.cost import Measurement, run_settings
from harness.train.distributed import connected
from harness.train.loop import Member
from harness.train.stage import Stage

WARM_UP_STEPS = 3  # first steps choose algorithms and fill caches
LONGEST_SECONDS = 60.0  # for each size of images, once there is a step to tell of
DEADLINE_SECONDS = 3600.0  # of a whole pilot: one that takes longer hangs


def measure(config: StageConfig, run: RunConfig, steps: int, store: Path) -> Measurement:
    """Train `steps` steps of a dense stage of this size in a scratch folder, on this device.

    Of images that grow while training, as many of each size. A teacher is taken from `store`.
    Memory on a CPU is what this process grew by: right in a fresh one only, since the memory that
    an earlier size gave back to the process is used again unseen (`measure_alone`).

    Raises UserError as training does.
    """
    with connected(run) as world, tempfile.TemporaryDirectory(prefix="pilot-") as scratch:
        folder = Path(scratch) / "stages" / "xx" / "pilot"
        folder.mkdir(parents=True)
        cuda = world.device.type == "cuda"
        if cuda:  # what was there before is no part of this
            gc.collect()
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # the most starts anew from here
        before = _host_bytes("VmRSS")
        dataset = load(config.dataset, run.data_root, run.loader, run.data_cache)
        epochs = config.recipe.epochs
        loader = make_loader(
            dataset, run, config.recipe.batch_size, world.rank, world.size, world.device, epochs
        )
        member = Member(stage_id(config), config, folder, None, store)
        untracked = run.model_copy(update={"tracker": "none"})  # the run of that id is the stage's
        stage = Stage(member, dataset, loader, untracked, world, lambda: None)
        spent = waited = 0.0  # of a step, mean over the training
        try:
            for epoch, alike in _unlike(config.dataset, dataset.resolution, epochs).items():
                step = _step(stage, loader, epoch, steps)
                spent += step[0] * alike / epochs
                waited += step[1] * alike / epochs
        finally:
            stage.close()
            loader.close()
        memory = torch.cuda.max_memory_allocated() if cuda else _host_bytes("VmHWM") - before
        return Measurement(
            seconds_per_epoch=spent * loader.steps_per_epoch * world.size,
            data_share=waited / spent,
            memory_bytes=max(1, memory),
            device_bytes=_device_bytes(world.device),
            device=torch.cuda.get_device_name() if cuda else "cpu",
            **run_settings(run),
        )


def measure_alone(config: StageConfig, run: RunConfig, steps: int, store: Path) -> Measurement:
    """`measure` in a fresh process, so that one size says nothing about the next.

    Raises UserError as training does, and where the process dies or does not end.
    """
    fresh = multiprocessing.get_context("spawn")
    named = f"the pilot of {config.model.family} width {config.model.width:g}"
    others = set(multiprocessing.active_children())
    with ProcessPoolExecutor(1, fresh) as pool:
        future = pool.submit(measure, config, run, steps, store)
        try:
            return future.result(DEADLINE_SECONDS)
        except BrokenProcessPool as error:
            raise UserError(
                f"{named} died without a word, for want of memory perhaps: ask for more, or for a "
                "smaller run.micro_batch_size."
            ) from error
        except TimeoutError as error:
            if future.done():  # one of its own
                raise
            for process in set(multiprocessing.active_children()) - others:  # or we wait for it
                process.kill()
            raise UserError(
                f"{named} did not end in {DEADLINE_SECONDS / 60:.0f} minutes: see whether the data "
                "and the device answer, or take a smaller run.micro_batch_size."
            ) from error


def _unlike(config: DatasetConfig, resolution: int, epochs: int) -> dict[int, int]:
    """An epoch for each size of training images, and how many epochs have that size."""
    sides = [
        side_at(epoch, epochs, resolution, config.start_resolution, config.ramp)
        for epoch in range(epochs)
    ]
    return {sides.index(side): sides.count(side) for side in dict.fromkeys(sides)}


def _step(stage: Stage, loader: Loader, epoch: int, steps: int) -> tuple[float, float]:
    """Seconds of a training step, and what of it went by waiting for the batch."""
    spent = waited = 0.0
    done = -WARM_UP_STEPS
    end = time.monotonic() + LONGEST_SECONDS

    def on() -> bool:
        return done < steps and (done < 1 or time.monotonic() < end)

    while on():
        batches = loader.epoch(stage.config.seed, epoch)
        while on():
            begun = time.perf_counter()
            batch = next(batches, None)
            got = time.perf_counter()
            if batch is None:
                break
            stage.train_on(batch, epoch)
            if stage.world.device.type == "cuda":
                torch.cuda.synchronize()
            done += 1
            if done > 0:
                waited += got - begun
                spent += time.perf_counter() - begun
    return spent / done, waited / done


def _host_bytes(line: Literal["VmRSS", "VmHWM"]) -> int:
    """Memory of this process, now or at most. Not `ru_maxrss`: a child starts with its parent's."""
    text = Path("/proc/self/status").read_text()
    return int(text.partition(f"{line}:")[2].split()[0]) * 1024


def _device_bytes(device: torch.device) -> int:
    """What the device has; on a CPU what this job's control group leaves of the machine's."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    total, _ = node.host_memory()
    return min(total, node.memory_limit() or total)
