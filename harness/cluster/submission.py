"""What a launch hands to its workers, one worker's view of it, and the circuit breaker.

The breaker ends all jobs of a launch when its first stages fail the same way.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field
from submitit import JobEnvironment

from harness.augment.spaces import SUFFIXES
from harness.cluster import failure, slurm
from harness.cluster.job_registry import GAVE_UP, reason_to_give_up
from harness.cluster.stop_flag import StopFlag
from harness.cluster_schema import ClusterConfig
from harness.fields import Frozen
from harness.files import atomic_write
from harness.plain_yaml import copy_tables, use_copies
from harness.run_schema import RunConfig
from harness.schema import StageConfig
from harness.store.store import Store
from harness.sweep.jobs import Job, stages_of

if TYPE_CHECKING:
    from harness.train import World


class Submission(Frozen):
    """One array of SLURM jobs, or the workers of one machine.

    `parts` has the gangs of each job of the array; local workers all work on part 0.
    """

    store: Path
    sweep: str
    run: RunConfig
    cluster: ClusterConfig
    stages: dict[str, StageConfig]  # parents before children
    # by stage: what its network is evaluated on
    targets: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    parts: list[Job]
    attempts: int = 0  # runs of the jobs that this one succeeds, where requeueing is impossible
    launcher: tuple[int, str] | None = None  # pid and start time: local workers end with it
    snapshot: Path | None = None  # the code that SLURM jobs run
    plugins: tuple[Path, ...] = ()  # copies of the plug-in files, for them

    def write(self, path: Path) -> None:
        """Write it as JSON, and copy the spaces that its policies may name."""
        copy_tables(path.parent / "tables", SUFFIXES)
        atomic_write(path, json.dumps(self.model_dump(mode="json")).encode())

    @classmethod
    def read(cls, path: Path) -> Submission:
        """Return what `write` wrote; not by pydantic's own parser, which refuses some paths."""
        use_copies(path.parent / "tables")
        return cls.model_validate(json.loads(path.read_bytes()), strict=False)

    def all_stages(self) -> list[str]:
        """Return the stages of all parts, in order."""
        return [stage for part in self.parts for stage in stages_of(part)]


class JobContext:
    """One rank's view of its job: a job of SLURM's, or a worker process on this machine."""

    def __init__(
        self, submission: Submission, part: int, folder: Path, world: World, stop: StopFlag
    ):
        """`part`: which part of the submission the job trains; `folder`: of the submission."""
        self.submission = submission
        self.part = part
        self.folder = folder
        self.world = world
        self.stop = stop
        self.store = Store(submission.store)
        self.in_slurm = slurm.this_job() is not None
        local_id = os.environ.get("SUBMITIT_LOCAL_JOB_ID", os.getpid())
        self.job = slurm.this_job() or f"local-{local_id}"
        self.attempt = slurm.restarts()  # how often SLURM has requeued the job
        try:
            # the file that this process writes to
            self.log = self.store.relative(JobEnvironment().paths.stdout)
        except (RuntimeError, KeyError):  # submitit did not start it
            self.log = ""


def trip_breaker(submission: Submission, folder: Path, record: dict[str, Any]) -> None:
    """End the launch's jobs when `BREAKER` stages failed like `record` and none is done.

    This covers the submission in `folder` and the launch's other arrays of which no stage is done.
    """
    store = Store(submission.store)
    stages = submission.all_stages()
    if reason_to_give_up(folder) or any(store.is_done(stage) for stage in stages):
        return
    signature = failure.signature(record)
    count = 0
    for stage in stages:
        last = store.failures(stage)[-1:]
        count += bool(last) and failure.signature(last[0]) == signature
    if count < failure.BREAKER:
        return
    reason = f"{count} stages failed alike and none is done: {record['message']}"
    for path in folder.parent.glob("*/submission.json"):
        other = submission if path.parent == folder else Submission.read(path)
        if not any(store.is_done(stage) for stage in other.all_stages()):
            atomic_write(path.parent / GAVE_UP, reason.encode())
