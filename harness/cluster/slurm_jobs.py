"""Submission to SLURM: job arrays with a limit on running jobs, through submitit.

Every array has its own folder with a `submission.json`; element k of the array trains part k of
that file. A submission that fails removes its files.
"""

from __future__ import annotations

import contextlib
import random
import shlex
import shutil
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from submitit.core.utils import FailedJobError, FailedSubmissionError
from submitit.slurm.slurm import SlurmExecutor

from harness.cluster import job_registry, job_script, slurm
from harness.cluster.launch_folder import (
    LaunchFolder,
    new_launch_folder,
    private_folder,
    take_code,
)
from harness.cluster.sbatch import as_from_login_node, check_jobs, sbatch_options
from harness.cluster.slurm import SlurmDown
from harness.cluster.submission import Submission
from harness.errors import UserError
from harness.schema import StageConfig
from harness.store.store import Store
from harness.sweep.jobs import Job, JobGroup, stages_of
from harness.sweep.plan import configs_of_job

LIMITS = (
    "SubmitJob", "MaxJobsPU", "SubmitLimit", "MaxArraySize",
    "job array specification", "temporarily unable to accept",
)  # fmt: skip
"""In SLURM's reason where a smaller array, or a later one, may be accepted."""
UNLIMITED = 1_000_000  # requeues that submitit allows a job: the harness counts them itself


@dataclass
class Submitted:
    """Ids of the jobs that were queued, and how many stages the site took no job for, and why.

    `folder` is that of the launch, or None where nothing was to be queued.
    """

    jobs: list[str] = field(default_factory=list)
    folder: LaunchFolder | None = None
    refused: int = 0
    why: str = ""


class Full(Exception):
    """The site accepts no more jobs of this user for now."""


class Refused(UserError):
    """SLURM does not take a job, for a reason that waiting does not change."""


class Submitter:
    """Submits the jobs of one launch. `work` is what each job runs, called by submitit."""

    def __init__(
        self,
        store: Store,
        sweep: str,
        stages: Mapping[str, StageConfig],
        work: Callable[..., Any],
        heartbeat: Callable[[], None],
        targets: Mapping[str, tuple[str, ...]],
    ):
        self.store, self.sweep, self.stages, self.work = store, sweep, stages, work
        self.targets = targets
        self.heartbeat = heartbeat
        self.arrays = 0
        self.submitted = Submitted()

    def submit(self, groups: list[JobGroup]) -> Submitted:
        """Queue every job, in random order: a half-finished sweep is then an unbiased sample.

        Raises UserError with SLURM's own reason, before anything is written or queued where SLURM
        can tell; it is Refused if SLURM tells at the first submission, so that nothing was queued.
        """
        check_jobs(((group.cluster, group.run) for group in groups), self.heartbeat)
        # 0 or 1 where the site has switched arrays off: each job is then submitted by itself
        size = max(1, min(slurm.until_up(slurm.largest_array, self.heartbeat), 10_000))
        self.folder = self.submitted.folder = take_code(self.store.sweep_folder(self.sweep))
        try:
            for group in groups:
                jobs = list(group.jobs)
                random.Random(self.folder.path.name).shuffle(jobs)
                for start in range(0, len(jobs), size):
                    self._submit_jobs(group, jobs[start : start + size])
        except Refused as error:
            if count := len(self.submitted.jobs):
                raise UserError(f"{error}; {count:,} other jobs were queued before") from error
            raise
        finally:
            if not self.submitted.jobs:
                shutil.rmtree(self.folder.path, ignore_errors=True)
                self.submitted.folder = None
        return self.submitted

    def _submit_jobs(self, group: JobGroup, jobs: list[Job]) -> None:
        """Queue jobs as one array, or as smaller arrays if the site's limits require it."""
        if not self.submitted.refused:  # nothing is tried after the first refusal
            try:
                self._submit_array(group, jobs)
                return
            except Full as full:
                if len(jobs) > 1:
                    middle = len(jobs) // 2
                    self._submit_jobs(group, jobs[:middle])
                    self._submit_jobs(group, jobs[middle:])
                    return
                self.submitted.why = str(full)
        self.submitted.refused += sum(len(stages_of(job)) for job in jobs)

    def _submit_array(self, group: JobGroup, jobs: list[Job]) -> None:
        """Queue jobs with one sbatch. Raises Full, or Refused with SLURM's reason."""
        self.heartbeat()
        stages = configs_of_job(self.stages, (stage for job in jobs for stage in stages_of(job)))
        submission = Submission(
            store=self.store.root,
            sweep=self.sweep,
            run=group.run,
            cluster=group.cluster,
            stages=stages,
            targets={stage: self.targets[stage] for stage in stages if stage in self.targets},
            parts=jobs,
            snapshot=self.folder.code,
            plugins=self.folder.plugins,
        )
        folder = self.folder.path / str(self.arrays)
        self.arrays += 1
        job = submit_after(submission, folder, self.work, group.after, self.heartbeat)
        self.submitted.jobs += [f"{job}_{i}" for i in range(len(jobs))] if len(jobs) > 1 else [job]


def submit_after(
    submission: Submission,
    folder: Path,
    work: Callable[..., Any],
    jobs: Collection[str],
    heartbeat: Callable[[], None],
) -> str:
    """Queue the parts of a submission, to start when `jobs` have ended; returns the array's id.

    `folder` is made for it. Raises Full, or Refused with SLURM's reason.
    """
    after = f"afterany:{':'.join(_shortened(jobs))}" if jobs else None
    return _send(submission, folder, work, after, heartbeat)


def resubmit(submission: Submission, part: int, attempts: int, work: Callable[..., Any]) -> str:
    """Queue one part again as a new job, the successor of the job that calls this; returns its id.

    `attempts`: how many runs of the part there were before this job's last one.
    """
    changes = {"parts": [submission.parts[part]], "attempts": attempts + 1}
    successor = submission.model_copy(update=changes)
    launch_folder = new_launch_folder(Store(submission.store).sweep_folder(submission.sweep))
    return _send(successor, launch_folder / "0", work)


def _send(
    submission: Submission,
    folder: Path,
    work: Callable[..., Any],
    dependency: str | None = None,
    heartbeat: Callable[[], None] = lambda: None,
) -> str:
    """Record and queue the parts of a submission; returns the id of the job or array.

    `folder` is made for it. Raises Full, or Refused with SLURM's reason.
    """
    sweep_folder = Store(submission.store).sweep_folder(submission.sweep)
    stages = [stages_of(job) for job in submission.parts]
    name = job_registry.record_submission(sweep_folder, stages, folder)
    path = folder / "submission.json"

    def try_once() -> str:
        slurm.cancel_named(name)  # and remove all that an earlier try left
        shutil.rmtree(folder, ignore_errors=True)
        private_folder(folder)
        submission.write(path)
        executor = _executor(submission, folder, name)
        executor.update_parameters(dependency=dependency)
        numbers = range(len(submission.parts))
        try:
            jobs = executor.map_array(work, [str(path)] * len(numbers), numbers)
        except (FailedJobError, FailedSubmissionError) as error:
            if any(text in str(error) for text in slurm.DOWN):
                raise SlurmDown(_reason(error)) from error
            raise
        return str(jobs[0].job_id).partition("_")[0]

    try:
        with as_from_login_node(submission.cluster):
            job = slurm.until_up(try_once, heartbeat)
    except (FailedJobError, FailedSubmissionError, ValueError) as error:
        with contextlib.suppress(SlurmDown):
            slurm.cancel_named(name)  # in case it was queued and the answer not understood
        shutil.rmtree(folder, ignore_errors=True)
        reason = _reason(error)
        if any(text in reason for text in LIMITS):
            raise Full(reason) from error
        raise Refused(f"SLURM refused the job: {reason}") from error
    job_registry.record_job_id(sweep_folder, name, job)
    return job


def _shortened(jobs: Collection[str]) -> list[str]:
    """Return jobs to wait for as a short list: the whole array for several of its elements."""
    elements: dict[str, list[str]] = {}
    for job in sorted(jobs):
        elements.setdefault(job.partition("_")[0], []).append(job)
    return [ids[0] if len(ids) == 1 else array for array, ids in elements.items()]


def _executor(submission: Submission, folder: Path, name: str) -> SlurmExecutor:
    """Return submitit's executor for the jobs of a submission, whose files go into `folder`."""
    cluster, profile = submission.cluster, submission.cluster.slurm
    tasks = submission.run.processes
    assert submission.snapshot is not None  # only jobs on this machine run the checkout itself
    executor = SlurmExecutor(
        folder=folder,
        max_num_timeout=UNLIMITED,
        python=job_script.task_command(folder, profile.python or shlex.quote(sys.executable)),
    )
    executor.update_parameters(
        job_name=name,
        time=cluster.timeout_min,
        nodes=profile.nodes,
        ntasks_per_node=tasks // profile.nodes,
        array_parallelism=cluster.workers,
        stderr_to_stdout=True,
        wckey=None,  # submitit would ask for one of its own, which sites that check them refuse
        setup=job_script.setup(folder, submission.snapshot, tasks, profile.setup),
        # Without --kill-on-bad-exit, the other ranks would continue after one was killed. SLURM
        # 22.05 to 23.02 do not pass --cpus-per-task from sbatch to srun.
        srun_args=["--kill-on-bad-exit=1", f"--cpus-per-task={profile.cpus_per_task}"],
        additional_parameters=sbatch_options(cluster),
    )
    return executor


def _reason(error: Exception) -> str:
    """Return SLURM's error lines from submitit's exception, or the last line of it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    errors = [line for line in lines if "error:" in line]
    return " ".join(errors or lines[-1:])
