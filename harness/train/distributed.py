"""The ranks of one job: a process group from plain environment variables, votes, broadcasts.

One process needs no variables. Several have RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and
MASTER_PORT (`harness.cluster.rendezvous` sets them from submitit's).
"""

from __future__ import annotations

import contextlib
import datetime
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from harness.errors import UserError
from harness.schema import RunConfig

TIMEOUT = datetime.timedelta(minutes=10)
"""A collective that takes longer means a dead rank: the job ends instead of idling."""
VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class World:
    """This process among its peers. Messages go over gloo, so they never wait for a GPU."""

    rank: int
    size: int
    device: torch.device
    control: dist.ProcessGroup | None = None

    def broadcast(self, value: Any) -> Any:
        """Rank 0's `value` on every rank."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, group=self.control)
        return box[0]

    def gather(self, value: Any) -> list[Any]:
        """Every rank's `value`, in the order of ranks, on every rank."""
        if self.size == 1:
            return [value]
        box: list[Any] = [None] * self.size
        dist.all_gather_object(box, value, group=self.control)
        return box

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """For each flag, whether any rank raised it."""
        if self.size == 1:
            return flags
        ballot = torch.tensor([int(flag) for flag in flags])
        dist.all_reduce(ballot, op=dist.ReduceOp.MAX, group=self.control)
        return tuple(bool(flag) for flag in ballot.tolist())

    def share_buffers(self, module: nn.Module) -> None:
        """Give every rank rank 0's buffers: batch-norm statistics are each rank's own."""
        buffers = list(module.buffers()) if self.size > 1 else []
        for dtype in dict.fromkeys(buffer.dtype for buffer in buffers):  # in one message each
            some = [buffer for buffer in buffers if buffer.dtype == dtype]
            flat = torch.cat([buffer.flatten() for buffer in some])
            dist.broadcast(flat, src=0)
            for buffer, part in zip(some, flat.split([b.numel() for b in some]), strict=True):
                buffer.copy_(part.view_as(buffer))


def pick_device(run: RunConfig, local_rank: int) -> torch.device:
    """The device of this rank. Raises UserError where `run.device` asks for a GPU in vain."""
    if run.device == "cpu" or (run.device == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise UserError(
            "run.device is cuda and this process sees no CUDA device. Workers see as many as they "
            "ask for: say cluster.gpus_per_node=N, or run.device=cpu."
        )
    return torch.device("cuda", local_rank % torch.cuda.device_count())


def _placed(run: RunConfig) -> tuple[int, int, int]:
    """Rank, number of ranks, and rank on this node, from the environment."""
    size = int(os.environ.get("WORLD_SIZE", 1))
    absent = [name for name in VARIABLES if name not in os.environ]
    if size != run.processes or (size > 1 and absent):
        said = f"{', '.join(absent)} not set" if absent else f"WORLD_SIZE is {size}"
        raise UserError(
            f"run.processes is {run.processes} and the environment is that of {size}: {said}; "
            f"start {run.processes} processes with {', '.join(VARIABLES)}, or set run.processes."
        )
    return int(os.environ.get("RANK", 0)), size, int(os.environ.get("LOCAL_RANK", 0))


def _repeat_bits(device: torch.device) -> None:
    """Make torch use deterministic algorithms. Operators without one fail on CPU, warn on a GPU."""
    torch.set_deterministic_debug_mode("error" if device.type == "cpu" else "warn")
    if device.type == "cuda":
        # read with the first product of matrices, which may add up in any order without it
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # would fill every new tensor first, against reads that we do not make
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


@contextlib.contextmanager
def connected(run: RunConfig) -> Iterator[World]:
    """Join the process group (DeepSpeed needs one for a single rank too); leave it at the end.

    Meanwhile torch takes deterministic algorithms, so that bits repeat, and on a CPU `run.threads`
    threads. On a GPU an operator that has no such algorithm warns, once; `run.deterministic=false`
    takes the fastest there.

    Raises:
        UserError: a GPU that is not there, or an environment that does not fit `run.processes`.
    """
    rank, size, local_rank = _placed(run)
    deterministic = torch.get_deterministic_debug_mode()
    device = pick_device(run, local_rank)
    if device.type == "cpu":
        torch.set_num_threads(run.threads)
        _repeat_bits(device)
        os.environ["DS_ACCELERATOR"] = "cpu"  # or DeepSpeed takes a GPU that it finds
    else:
        torch.cuda.set_device(device)
        if run.deterministic:
            _repeat_bits(device)
    backend = "nccl" if device.type == "cuda" else "gloo"
    if size == 1:
        os.environ.setdefault("LOCAL_RANK", "0")  # DeepSpeed reads it
        dist.init_process_group(
            backend, store=dist.HashStore(), rank=0, world_size=1, timeout=TIMEOUT
        )
    else:
        dist.init_process_group(backend, rank=rank, world_size=size, timeout=TIMEOUT)
    try:
        control: Any = dist.new_group(backend="gloo", timeout=TIMEOUT) if size > 1 else None
        yield World(rank, size, device, control)
    finally:
        dist.destroy_process_group()
        torch.set_deterministic_debug_mode(deterministic)
