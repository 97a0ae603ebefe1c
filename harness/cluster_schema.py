"""The frozen models of a cluster profile: where jobs run, and what they ask SLURM for.

They are operational keys (`cluster`), filled from `slurm/cluster/*.yaml` and the command line. No
value can break out of its sbatch line.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, Strict, field_validator

from harness.schema import Frozen, PositiveInt

# What may stand in an sbatch line: no blank, quote, hash, dollar or line break gets through. Its
# length is no part of the pattern, which would then take each process a tenth of a second to build.
SbatchWord = Annotated[str, Field(pattern=r"^[\w.,:=@%/+&|()\[\]*!-]+$", max_length=200)]
SbatchOption = Annotated[str, Field(pattern=r"^[a-z][a-z-]+$", max_length=41)]
ShellLine = Annotated[str, Field(pattern=r"^[^\r\n\x00]+$", max_length=2000)]
Gigabytes = Annotated[float, Field(gt=0.0, le=1e6)]
Minutes = Annotated[int, Field(gt=0, le=60 * 24 * 365)]
OWN_OPTIONS = frozenset(
    {"array", "dependency", "output", "error", "job-name", "time", "requeue", "no-requeue"}
    | {"clusters", "export-file"}  # squeue would then ask another cluster
    | {"wrap", "chdir", "signal", "open-mode", "test-only", "parsable", "input", "export"}
    | {"nodes", "ntasks-per-node", "cpus-per-task", "wait", "quiet", "help", "usage", "version"}
)
"""Options of sbatch that the harness sets itself, or that would change what it reads back."""


class SlurmConfig(Frozen):
    """What a job asks SLURM for; null leaves a thing to the site's default."""

    partition: SbatchWord | None = None
    account: SbatchWord | None = None
    qos: SbatchWord | None = None
    constraint: SbatchWord | None = None
    nodes: PositiveInt = 1
    cpus_per_task: PositiveInt = 4
    mem_gb: Gigabytes | None = None  # per node
    max_mem_gb: Gigabytes | None = None  # after running out, memory is doubled up to here
    signal_seconds: PositiveInt = 120  # before the time limit the job is told to save
    requeue: bool = True  # false: the site forbids it, a stopped job submits its successor
    pack_share: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5  # of its time limit a job is filled
    extra: dict[SbatchOption, SbatchWord | int | bool] = Field(
        default_factory=dict
    )  # further long options of sbatch
    setup: Annotated[tuple[ShellLine, ...], Strict(False)] = ()  # shell lines before the worker
    python: ShellLine | None = None  # a container's command for Python; null: this Python

    @field_validator("extra")
    @classmethod
    def _not_our_own(cls, value: dict[str, object]) -> dict[str, object]:
        # sbatch takes unambiguous beginnings of its options for the whole
        if taken := sorted(k for k in value if any(own.startswith(k) for own in OWN_OPTIONS)):
            raise ValueError(f"{', '.join(taken)}: set by the harness itself, leave it out")
        return value


class ResourceRule(Frozen):
    """Other resources for the sizes that `where` holds for; null leaves the profile's value.

    `where` is a condition on a dense stage's dataset, family, depth, width, batch_size, epochs.
    """

    where: str
    partition: SbatchWord | None = None
    constraint: SbatchWord | None = None
    timeout_min: Minutes | None = None
    gpus_per_node: Annotated[int, Field(ge=0)] | None = None
    nodes: PositiveInt | None = None
    processes: PositiveInt | None = None
    cpus_per_task: PositiveInt | None = None
    mem_gb: Gigabytes | None = None
    micro_batch_size: PositiveInt | None = None


class ClusterConfig(Frozen):
    """Where jobs run. `workers` is the number of processes (local) or of jobs at once (SLURM)."""

    name: str
    executor: Literal["local", "slurm"] = "local"
    workers: PositiveInt = 1
    gpus_per_node: Annotated[int, Field(ge=0)] = 0
    timeout_min: Minutes = 60 * 24 * 7
    resources: Annotated[tuple[ResourceRule, ...], Strict(False)] = ()  # the first that holds
    slurm: SlurmConfig = SlurmConfig()
