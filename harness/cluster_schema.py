"""The frozen models of a cluster profile: where jobs run, and what they ask SLURM for.

These are operational settings (the key `cluster`), from `slurm/cluster/*.yaml` and the command
line. No value can change more than its own sbatch option.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, Strict, field_validator

from harness.fields import Frozen, NonNegativeInt, PositiveInt, PositiveShare

# Characters allowed in an sbatch line: no blank, quote, hash, dollar or line break. The length is
# not part of the pattern, because compiling such a pattern takes every process 0.1 s.
_WORD, _LONGEST_WORD = r"^[\w.,:=@%/+&|()\[\]*!-]+$", 200


def _option_value(value: object) -> object:
    is_word = isinstance(value, str) and len(value) <= _LONGEST_WORD and re.fullmatch(_WORD, value)
    if not is_word and not isinstance(value, int):
        raise ValueError(
            "must be a word without blanks and quotes, a whole number, true or false, not "
            f"{str(value)[:80]!r}"
        )
    return value


SbatchWord = Annotated[str, Field(pattern=_WORD, max_length=_LONGEST_WORD)]
SbatchValue = Annotated[SbatchWord | int | bool, BeforeValidator(_option_value)]
SbatchOption = Annotated[str, Field(pattern=r"^[a-z][a-z-]+$", max_length=41)]
GpuType = Annotated[str, Field(pattern=r"^[\w.-]+$", max_length=60)]
ShellLine = Annotated[str, Field(pattern=r"^[^\r\n\x00]+$", max_length=2000)]
Gigabytes = Annotated[float, Field(gt=0.0, le=1e6)]
Workers = Annotated[int, Field(gt=0, le=100_000)]
Minutes = Annotated[int, Field(gt=0, le=60 * 24 * 365)]
OWN_OPTIONS = frozenset(
    {"array", "dependency", "output", "error", "job-name", "time", "requeue", "no-requeue"}
    | {"clusters", "export-file"}  # with which squeue would look at another cluster
    | {"wrap", "chdir", "signal", "open-mode", "test-only", "parsable", "input", "export"}
    | {"nodes", "ntasks-per-node", "tasks-per-node", "cpus-per-task"}
    | {"wait", "quiet", "help", "usage", "version"}
)
"""Options of sbatch that the harness sets itself, or that change the answers it reads."""
KEYS = {
    "partition": "cluster.slurm.partition",
    "account": "cluster.slurm.account",
    "qos": "cluster.slurm.qos",
    "constraint": "cluster.slurm.constraint",
    "mem": "cluster.slurm.mem_gb",
    "gpus-per-node": "cluster.gpus_per_node and cluster.slurm.gpu_type",
}
"""Options of sbatch that have a key of their own, which would otherwise be written twice."""


class SlurmConfig(Frozen):
    """The resources that a job requests from SLURM; null means the site's default."""

    partition: SbatchWord | None = None  # queue of the jobs
    decision_partition: SbatchWord | None = None  # of the job that decides a round of `settle`
    account: SbatchWord | None = None  # account to charge
    qos: SbatchWord | None = None  # quality of service
    constraint: SbatchWord | None = None  # features that a node must have, such as a100|h100
    gpu_type: GpuType | None = None  # type of the GPUs of gpus_per_node, as the site calls it
    nodes: PositiveInt = 1  # nodes of each job
    cpus_per_task: PositiveInt = 4  # cores of each rank
    mem_gb: Gigabytes | None = None  # host memory of each node
    max_mem_gb: Gigabytes | None = None  # limit for stages that ran out of memory and get more
    signal_seconds: PositiveInt = 120  # the signal comes this long before the limit, to save
    requeue: bool = True  # false where the site forbids it: a stopped job submits its successor
    pack_share: PositiveShare = 0.5  # share of the time limit that small trees of stages fill
    extra: dict[SbatchOption, SbatchValue] = Field(
        default_factory=dict
    )  # further long options of sbatch
    setup: Annotated[tuple[ShellLine, ...], Strict(False)] = ()  # shell lines before the worker
    python: ShellLine | None = None  # a container's command for Python; null: this Python

    @field_validator("extra")
    @classmethod
    def _refuse_own_options(cls, value: dict[str, object]) -> dict[str, object]:
        # sbatch accepts an unambiguous beginning of an option for the whole
        if own := sorted(k for k in value if any(option.startswith(k) for option in OWN_OPTIONS)):
            raise ValueError(f"{', '.join(own)}: set by the harness itself, leave it out")
        # `gpus` is an option of its own, and `gpu_options` has it
        beginnings = {k: o for o in KEYS for k in value if o.startswith(k) and k != "gpus"}
        if twice := sorted(beginnings):
            keys = " and ".join(KEYS[beginnings[option]] for option in twice)
            raise ValueError(f"{', '.join(twice)}: set {keys} instead")
        return value

    def gpu_options(self) -> list[str]:
        """Return the options of `extra` that ask for GPUs, or for shares of them."""
        return [
            key
            for key, value in self.extra.items()
            if key.startswith("gpus")
            or (key.startswith(("gr", "tres")) and re.search("gpu|mps|shard", str(value)))
        ]


class ResourceRule(Frozen):
    """Other resources for the sizes for which `where` holds; null keeps the profile's value.

    `where` is a condition on dataset, family, depth, width, batch_size and epochs of a dense stage.
    """

    where: str  # condition on dataset, family, depth, width, batch_size and epochs
    partition: SbatchWord | None = None  # instead of slurm.partition
    constraint: SbatchWord | None = None  # instead of slurm.constraint
    gpu_type: GpuType | None = None  # instead of slurm.gpu_type
    timeout_min: Minutes | None = None  # instead of timeout_min
    gpus_per_node: NonNegativeInt | None = None  # instead of gpus_per_node
    nodes: PositiveInt | None = None  # instead of slurm.nodes
    processes: PositiveInt | None = None  # instead of run.processes
    cpus_per_task: PositiveInt | None = None  # instead of slurm.cpus_per_task
    mem_gb: Gigabytes | None = None  # instead of slurm.mem_gb
    micro_batch_size: PositiveInt | None = None  # instead of run.micro_batch_size


class ClusterConfig(Frozen):
    """Where jobs run. `workers` limits processes (local), or running jobs of an array (SLURM)."""

    name: str  # name of the profile, in messages and records
    executor: Literal["local", "slurm"] = "local"  # where jobs run
    workers: Workers = 1  # processes (local), or running jobs of an array (slurm)
    gpus_per_node: NonNegativeInt = 0  # GPUs of a job on each node, or of this machine
    timeout_min: Minutes = 60 * 24 * 7  # time limit of a job, in minutes
    resources: Annotated[tuple[ResourceRule, ...], Strict(False)] = ()  # the first rule that holds
    slurm: SlurmConfig = SlurmConfig()
