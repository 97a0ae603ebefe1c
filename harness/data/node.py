"""How much of this node is this process's: cores to decode with, memory to hold a data set in."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
WORKERS = "HARNESS_WORKERS"


def share(workers: int) -> None:
    """Say how many workers of one launch train side by side on this machine; they cannot tell."""
    os.environ[WORKERS] = str(workers)


def processes_here() -> int:
    """Ranks on this node: of this job (`cluster/rendezvous.py` sets it), in each of the workers."""
    ranks = os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("WORLD_SIZE") or "1"
    return max(1, int(ranks)) * int(os.environ.get(WORKERS, "1"))


def usable_cores() -> int:
    """Cores for this rank.

    SLURM gives a task so many, whether or not the site binds tasks to them. Ranks that nobody gave
    any share those that they may run on, and so do the workers of a launch within a task.
    """
    mine = len(os.sched_getaffinity(0))
    given = os.environ.get("SLURM_CPUS_PER_TASK")
    all_mine = given is not None and WORKERS not in os.environ
    return max(1, min(mine, int(given or mine)) // (1 if all_mine else processes_here()))


def memory_limit() -> int | None:
    """Bytes that this process's control group may use, SLURM's `--mem` above all; None: no limit.

    Every group above it counts, too. Both versions of control groups are read.
    """
    limits = []
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, kinds, place = line.split(":", 2)
            if kinds and "memory" not in kinds.split(","):
                continue
            root, name = (CGROUPS, "memory.max")
            if kinds:
                root, name = CGROUPS / "memory", "memory.limit_in_bytes"
            folder = root / place.lstrip("/")
            for group in (folder, *folder.parents):
                with contextlib.suppress(OSError, ValueError):  # "max", or not our own view
                    limits.append(int((group / name).read_text()))
                if group == root:
                    break
    return min(limits, default=None)


def host_memory() -> tuple[int, int]:
    """Bytes of this machine's memory: all of it, and what is free or could be freed."""
    lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    total, free = (int(lines[name].split()[0]) * 1024 for name in ("MemTotal", "MemAvailable"))
    return total, free
