"""The ranks of one job: a process group from plain environment variables, votes, broadcasts.

A single process needs no variables, and removes those of another tool. Several processes need
RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT; `harness.cluster` sets them.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from harness.errors import UserError
from harness.run_schema import RunConfig

TIMEOUT = datetime.timedelta(minutes=10)
"""A collective operation that takes longer means a dead rank, so the job ends."""
VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class World:
    """This process among the ranks of its job. Messages go over gloo and do not wait for a GPU."""

    rank: int
    size: int
    device: torch.device
    control: dist.ProcessGroup | None = None

    def broadcast(self, value: Any) -> Any:
        """Return rank 0's `value`, on every rank."""
        if self.size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0, group=self.control)
        return values[0]

    def gather(self, value: Any) -> list[Any]:
        """Return every rank's `value` in the order of ranks, on every rank."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value, group=self.control)
        return values

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """Return for each flag whether it is true on any rank."""
        if self.size == 1:
            return flags
        votes = torch.tensor([int(flag) for flag in flags])
        dist.all_reduce(votes, op=dist.ReduceOp.MAX, group=self.control)
        return tuple(bool(vote) for vote in votes.tolist())

    def share_buffers(self, module: nn.Module) -> None:
        """Give every rank the buffers of rank 0, that is its batch-norm statistics.

        All buffers of one dtype are sent in one message.
        """
        buffers = list(module.buffers()) if self.size > 1 else []
        for dtype in dict.fromkeys(buffer.dtype for buffer in buffers):
            alike = [buffer for buffer in buffers if buffer.dtype == dtype]
            flat = torch.cat([buffer.flatten() for buffer in alike])
            dist.broadcast(flat, src=0)
            for buffer, part in zip(alike, flat.split([b.numel() for b in alike]), strict=True):
                buffer.copy_(part.view_as(buffer))


def pick_device(run: RunConfig, local_rank: int) -> torch.device:
    """Return the device of this rank. Raises UserError if `run.device` is a missing GPU."""
    if run.device == "cpu" or (run.device == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise UserError(
            f"run.device is cuda and this process on the node {platform.node()} sees no CUDA "
            "device. A worker sees the GPUs that its job requests: set cluster.gpus_per_node=N, or "
            "run.device=cpu."
        )
    return torch.device("cuda", local_rank % torch.cuda.device_count())


def _ranks_from_environment(run: RunConfig) -> tuple[int, int, int]:
    """Return rank, number of ranks, and rank on this node.

    A single process removes the variables, because DeepSpeed and torch would read them, too.
    """
    if run.processes == 1:
        for name in (*VARIABLES, "LOCAL_WORLD_SIZE"):
            os.environ.pop(name, None)
        return 0, 1, 0
    size = int(os.environ.get("WORLD_SIZE") or 1)
    absent = [name for name in VARIABLES if not os.environ.get(name)]
    if size != run.processes or absent:
        reason = f"{', '.join(absent)} not set" if absent else f"WORLD_SIZE is {size}"
        raise UserError(
            f"run.processes is {run.processes} and the environment is that of {size}: {reason}; "
            f"start {run.processes} processes with {', '.join(VARIABLES)}, or set run.processes."
        )
    return int(os.environ["RANK"]), size, int(os.environ["LOCAL_RANK"])


def _use_deterministic_algorithms(device: torch.device) -> None:
    """Make torch use deterministic algorithms. Operators without one fail on CPU, warn on a GPU."""
    torch.set_deterministic_debug_mode("error" if device.type == "cpu" else "warn")
    if device.type == "cuda":
        # cuBLAS reads it at its first call; without it products of matrices add up in any order
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # torch would fill every new tensor, which only helps code that reads uninitialized memory
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


@contextlib.contextmanager
def connected(run: RunConfig) -> Iterator[World]:
    """Join the process group in the block; DeepSpeed needs one for a single rank too.

    In the block torch uses deterministic algorithms, so that bits repeat, and on a CPU
    `run.threads` threads. On a GPU an operator without a deterministic algorithm warns once;
    `run.deterministic=false` chooses the fastest algorithms there.

    Raises:
        UserError: a GPU that is missing, or an environment that does not fit `run.processes`.
    """
    rank, size, local_rank = _ranks_from_environment(run)
    deterministic = torch.get_deterministic_debug_mode()
    device = pick_device(run, local_rank)
    if device.type == "cpu":
        torch.set_num_threads(run.threads)
        _use_deterministic_algorithms(device)
        os.environ["DS_ACCELERATOR"] = "cpu"  # by default DeepSpeed uses a GPU if it finds one
    else:
        torch.cuda.set_device(device)
        if run.deterministic:
            _use_deterministic_algorithms(device)
    backend = "nccl" if device.type == "cuda" else "gloo"
    if size == 1:
        os.environ["LOCAL_RANK"] = "0"  # DeepSpeed reads it
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
