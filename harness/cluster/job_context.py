"""The facts about its job that every part of a worker needs."""

from __future__ import annotations

import os
from pathlib import Path

from submitit import JobEnvironment

from harness.cluster import slurm
from harness.cluster.stop_flag import StopFlag
from harness.cluster.submission import Submission
from harness.store.store import Store
from harness.train import World


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
