"""The frozen models of a cluster profile: where jobs run, and what they ask SLURM for.

These are operational settings (the key `cluster`), from `slurm/cluster/*.yaml` and the command
line. No value can change more than its own sbatch option.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, Strict, field_validator

from harness.schema import Frozen, PositiveInt

# Characters allowed in an sbatch line: no blank, quote, hash, dollar or line break. The length is
# not part of the pattern, because compiling such a pattern takes every process 0.1 s.
SbatchWord = Annotated[str, Field(pattern=r"^[\w.,:=@%/+&|()\[\]*!-]+$", max_length=200)]
SbatchOption = Annotated[str, Field(pattern=r"^[a-z][a-z-]+$", max_length=41)]
GpuType = Annotated[str, Field(pattern=r"^[\w.-]+$", max_length=60)]
ShellLine = Annotated[str, Field(pattern=r"^[^\r\n\x00]+$", max_length=2000)]
Gigabytes = Annotated[float, Field(gt=0.0, le=1e6)]
Minutes = Annotated[int, Field(gt=0, le=60 * 24 * 365)]
OWN_OPTIONS = frozenset(
    {"array", "dependency", "output", "error", "job-name", "time", "requeue", "no-requeue"}
    | {"clusters", "export-file"}  # with which squeue would look at another cluster
    | {"wrap", "chdir", "signal", "open-mode", "test-only", "parsable", "input", "export"}
    | {"nodes", "ntasks-per-node", "cpus-per-task", "wait", "quiet", "help", "usage", "version"}
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

    partition: SbatchWord | None = None
    account: SbatchWord | None = None
    qos: SbatchWord | None = None
    constraint: SbatchWord | None = None
    gpu_type: GpuType | None = None  # of `gpus_per_node`, as the site calls it
    nodes: PositiveInt = 1
    cpus_per_task: PositiveInt = 4
    mem_gb: Gigabytes | None = None  # per node
    max_mem_gb: Gigabytes | None = None  # limit for stages that ran out of memory and get more
    signal_seconds: PositiveInt = 120  # the signal comes this long before the limit, to save
    requeue: bool = True  # false where the site forbids it: a stopped job submits its successor
    pack_share: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5  # share of the time limit to fill
    extra: dict[SbatchOption, SbatchWord | int | bool] = Field(
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
        if twice := sorted(set(value) & set(KEYS)):
            keys = " and ".join(KEYS[option] for option in twice)
            raise ValueError(f"{', '.join(twice)}: set {keys} instead")
        return value


class ResourceRule(Frozen):
    """Other resources for the sizes for which `where` holds; null keeps the profile's value.

    `where` is a condition on dataset, family, depth, width, batch_size and epochs of a dense stage.
    """

    where: str
    partition: SbatchWord | None = None
    constraint: SbatchWord | None = None
    gpu_type: GpuType | None = None
    timeout_min: Minutes | None = None
    gpus_per_node: Annotated[int, Field(ge=0)] | None = None
    nodes: PositiveInt | None = None
    processes: PositiveInt | None = None
    cpus_per_task: PositiveInt | None = None
    mem_gb: Gigabytes | None = None
    micro_batch_size: PositiveInt | None = None


class ClusterConfig(Frozen):
    """Where jobs run. `workers` limits processes (local), or running jobs of an array (SLURM)."""

    name: str
    executor: Literal["local", "slurm"] = "local"
    workers: PositiveInt = 1
    gpus_per_node: Annotated[int, Field(ge=0)] = 0
    timeout_min: Minutes = 60 * 24 * 7
    resources: Annotated[tuple[ResourceRule, ...], Strict(False)] = ()  # the first rule that holds
    slurm: SlurmConfig = SlurmConfig()
