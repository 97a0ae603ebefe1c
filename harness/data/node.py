"""This process's share of the node: CPU cores for decoding, and memory for a data set."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
WORKERS = "HARNESS_WORKERS"


def share(workers: int) -> None:
    """Record that `workers` processes of one launch train side by side on this machine.

    The workers inherit an environment variable, because they do not know of each other otherwise.
    """
    os.environ[WORKERS] = str(workers)


def processes_here() -> int:
    """Return the number of training processes on this node: ranks times workers.

    `cluster/rendezvous.py` sets LOCAL_WORLD_SIZE, the ranks of one worker on this node.
    """
    ranks = _number("LOCAL_WORLD_SIZE") or _number("WORLD_SIZE") or 1
    return ranks * (_number(WORKERS) or 1)


def _number(variable: str) -> int | None:
    """Return the positive number in a variable; None for any other text.

    Other tools also set some of these variables.
    """
    text = os.environ.get(variable, "")
    return (int(text) or None) if text.isdecimal() else None


def usable_cores() -> int:
    """Return the number of cores that this rank may decode with.

    SLURM assigns SLURM_CPUS_PER_TASK cores to a task, whether or not the site binds tasks to them.
    Without that variable, the ranks of a node split the cores of its affinity mask. The workers of
    a launch that runs within one task split the cores of the task.
    """
    cores = len(os.sched_getaffinity(0))
    per_task = _number("SLURM_CPUS_PER_TASK")
    if per_task is not None:
        cores = min(cores, per_task)
    is_own_task = per_task is not None and WORKERS not in os.environ
    return max(1, cores // (1 if is_own_task else processes_here()))


def memory_limit() -> int | None:
    """Return the memory limit of this process's control group in bytes; None: no limit.

    SLURM sets it from `--mem`. The limits of all parent groups count too. Versions 1 and 2 of
    control groups are read.
    """
    limits = []
    with contextlib.suppress(OSError):
        groups = Path("/proc/self/cgroup").read_text("utf-8", "surrogateescape")
        for line in groups.splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers:  # version 2
                root, name = CGROUPS, "memory.max"
            elif "memory" in controllers.split(","):
                root, name = CGROUPS / "memory", "memory.limit_in_bytes"
            else:
                continue
            folder = root / path.lstrip("/")
            for group in (folder, *folder.parents):
                with contextlib.suppress(OSError, ValueError):  # "max", or not readable here
                    limits.append(int((group / name).read_text()))
                if group == root:
                    break
    return min(limits, default=None)


def host_memory() -> tuple[int, int]:
    """Return this machine's memory in bytes: in total, and as far as it is free or can be freed."""
    lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    total, free = (int(lines[name].split()[0]) * 1024 for name in ("MemTotal", "MemAvailable"))
    return total, free
