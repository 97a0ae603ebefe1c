"""Short trainings that measure one size: seconds of a step, waiting for data, memory."""

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
from harness.errors import UserError
from harness.run_schema import RunConfig
from harness.schema import DatasetConfig, StageConfig
from harness.store.identity import stage_id
from harness.sweep.cost import Measurement, run_settings
from harness.train.distributed import connected
from harness.train.gang import Member, load_data
from harness.train.stage import Stage

WARM_UP_STEPS = 3  # the first steps choose algorithms and fill caches; they are not measured
LONGEST_SECONDS = 60.0  # for each size of images, once one step is measured
DEADLINE_SECONDS = 3600.0  # for a whole measurement; one that takes longer hangs


def measure_steps(config: StageConfig, run: RunConfig, steps: int, store: Path) -> Measurement:
    """Train `steps` steps of a dense stage in a scratch folder, on this device, and time them.

    Where training images grow, each of their sizes gets as many steps. A teacher is read from
    `store`.

    On a CPU the memory is what this process grew by. That is right in a new process only, because
    memory that an earlier measurement released to the process is used again and not seen. See
    `measure_steps_in_new_process`.

    Raises UserError as training does.
    """
    with connected(run) as world, tempfile.TemporaryDirectory(prefix="pilot-") as scratch:
        folder = Path(scratch) / "stages" / "xx" / "pilot"
        folder.mkdir(parents=True)
        is_cuda = world.device.type == "cuda"
        if is_cuda:  # do not count what was allocated before
            gc.collect()
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM, the peak memory
        before = _host_bytes("VmRSS")
        # without a tracker: the tracker's run of this id belongs to the real stage
        untracked = run.model_copy(update={"tracker": "none"})
        gang = load_data(config, untracked, world, heartbeat=lambda: None)
        member = Member(stage_id(config), config, folder, None, teacher_store=store)
        stage = Stage(member, gang)
        epochs, resolution = config.recipe.epochs, gang.dataset.resolution
        step_seconds = wait_seconds = 0.0  # mean over the steps of the whole training
        try:
            for epoch, count in _epochs_by_side(config.dataset, resolution, epochs).items():
                seconds, waited = _time_steps(stage, epoch, steps)
                step_seconds += seconds * count / epochs
                wait_seconds += waited * count / epochs
        finally:
            stage.close()
            gang.loader.close()
        memory = torch.cuda.max_memory_allocated() if is_cuda else _host_bytes("VmHWM") - before
        return Measurement(
            seconds_per_epoch=step_seconds * gang.loader.steps_per_epoch * world.size,
            data_share=wait_seconds / step_seconds,
            memory_bytes=max(1, memory),
            device_bytes=_device_bytes(world.device),
            device=torch.cuda.get_device_name() if is_cuda else "cpu",
            **run_settings(run),
        )


def measure_steps_in_new_process(
    config: StageConfig, run: RunConfig, steps: int, store: Path
) -> Measurement:
    """Run `measure_steps` in a new process, so that no size influences the next one's memory.

    Raises UserError as training does, and if the process dies or does not end in time.
    """
    spawn = multiprocessing.get_context("spawn")
    name = f"the pilot of {config.model.family} width {config.model.width:g}"
    older_children = set(multiprocessing.active_children())
    with ProcessPoolExecutor(1, spawn) as pool:
        future = pool.submit(measure_steps, config, run, steps, store)
        try:
            return future.result(DEADLINE_SECONDS)
        except BrokenProcessPool as error:
            raise UserError(
                f"{name} died without a message, perhaps because memory ran out: ask for more "
                "memory, or for a smaller run.micro_batch_size."
            ) from error
        except TimeoutError as error:
            if future.done():  # the measurement itself raised a TimeoutError
                raise
            # leaving the block waits for the process, so it has to end
            for process in set(multiprocessing.active_children()) - older_children:
                process.kill()
            raise UserError(
                f"{name} did not end in {DEADLINE_SECONDS / 60:.0f} minutes: check that the data "
                "and the device respond, or choose a smaller run.micro_batch_size."
            ) from error


def _epochs_by_side(config: DatasetConfig, resolution: int, epochs: int) -> dict[int, int]:
    """Return one epoch for each side of training images, and how many epochs have that side."""
    sides = [
        side_at(epoch, epochs, resolution, config.start_resolution, config.ramp)
        for epoch in range(epochs)
    ]
    return {sides.index(side): sides.count(side) for side in dict.fromkeys(sides)}


def _time_steps(stage: Stage, epoch: int, steps: int) -> tuple[float, float]:
    """Return the mean seconds of a training step, and of the wait for its batch in that time.

    Trains `steps` steps with images of `epoch`. It ends after `LONGEST_SECONDS` if that comes
    first, but not before one step is timed.
    """
    total = waited = 0.0
    done = -WARM_UP_STEPS
    deadline = time.monotonic() + LONGEST_SECONDS

    def is_going_on() -> bool:
        return done < steps and (done < 1 or time.monotonic() < deadline)

    while is_going_on():
        batches = stage.gang.loader.epoch(stage.config.seed, epoch)
        while is_going_on():
            started = time.perf_counter()
            batch = next(batches, None)
            loaded = time.perf_counter()
            if batch is None:
                break
            stage.train_step(batch, epoch)
            if stage.gang.world.device.type == "cuda":
                torch.cuda.synchronize()
            done += 1
            if done > 0:
                waited += loaded - started
                total += time.perf_counter() - started
    return total / done, waited / done


def _host_bytes(field: Literal["VmRSS", "VmHWM"]) -> int:
    """Return the memory of this process: resident now (VmRSS) or at its peak (VmHWM).

    Not `ru_maxrss`, in which a child process starts with the peak of its parent.
    """
    status = Path("/proc/self/status").read_text(errors="replace")
    return int(status.partition(f"{field}:")[2].split()[0]) * 1024


def _device_bytes(device: torch.device) -> int:
    """Return the memory of a GPU; for a CPU the host's, or less where the control group limits."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    total, _ = node.host_memory()
    return min(total, node.memory_limit() or total)
