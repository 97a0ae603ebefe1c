"""Submission to SLURM: job arrays with a limit on running jobs, through submitit.

Every array has its own folder with a `submission.json`; element k of the array trains part k of
that file. A submission that fails removes its files.
"""

from __future__ import annotations

import contextlib
import os
import random
import shlex
import shutil
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from submitit.core.utils import FailedJobError, FailedSubmissionError
from submitit.helpers import clean_env
from submitit.slurm.slurm import SlurmExecutor

from harness.cluster import job_registry, slurm
from harness.cluster.private_folders import new_launch_folder, private_folder
from harness.cluster.slurm import SlurmDown
from harness.cluster.snapshot import take_plugins, take_snapshot
from harness.cluster.submission import Submission
from harness.cluster_schema import ClusterConfig
from harness.errors import UserError
from harness.schema import RunConfig, StageConfig
from harness.store.store import Store
from harness.sweep.jobs import Job, JobGroup, stages_of
from harness.sweep.plan import lineage

LIMITS = (
    "SubmitJob", "MaxJobsPU", "SubmitLimit", "MaxArraySize",
    "job array specification", "temporarily unable to accept",
)  # fmt: skip
"""In SLURM's reason where a smaller array, or a later one, may be accepted."""
UNSURE = "Requested node configuration is not available"
NEVER = ("PartitionConfig", "PartitionNodeLimit", "PartitionTimeLimit", "BadConstraints")
HOLDING = ("begin", "hold")  # options with which SLURM checks nothing at submission
UNLIMITED = 1_000_000  # requeues that submitit allows a job: the harness counts them itself
SITE_VARIABLES = ("SLURM_CONF", "SLURM_JWT", "SLURM_CLUSTERS")
CHOICES = ("partition", "account", "qos", "constraint")


@dataclass
class Submitted:
    """Ids of the jobs that were queued, and how many stages the site took no job for, and why."""

    jobs: list[str] = field(default_factory=list)
    refused: int = 0
    why: str = ""


class Full(Exception):
    """The site accepts no more jobs of this user for now."""


class Submitter:
    """Submits the jobs of one launch. `work` is what each job runs, called by submitit."""

    def __init__(
        self,
        store: Store,
        sweep: str,
        stages: Mapping[str, StageConfig],
        work: Callable[..., Any],
        heartbeat: Callable[[], None] = lambda: None,
    ):
        self.store, self.sweep, self.stages, self.work = store, sweep, stages, work
        self.sweep_folder = store.sweep_folder(sweep)
        self.folder = new_launch_folder(self.sweep_folder)
        self.snapshot = take_snapshot(self.folder)
        self.plugins = take_plugins(self.folder)
        self.heartbeat = heartbeat
        self.arrays = 0
        self.submitted = Submitted()

    def submit(self, groups: list[JobGroup]) -> Submitted:
        """Queue every job, in random order: a half-finished sweep is then an unbiased sample.

        Raises UserError with SLURM's own reason, before anything is queued where SLURM can tell.
        """
        try:
            checked: list[tuple[ClusterConfig, RunConfig]] = []
            for group in groups:
                if (group.cluster, group.run) not in checked:
                    checked.append((group.cluster, group.run))
                    check(group.cluster, group.run, self.folder, self.snapshot, self.heartbeat)
            size = min(slurm.until_up(slurm.largest_array, self.heartbeat), 10_000)
            for group in groups:
                jobs = list(group.jobs)
                random.Random(self.folder.name).shuffle(jobs)
                for start in range(0, len(jobs), size):
                    self._submit_jobs(group, jobs[start : start + size])
        finally:
            if not self.submitted.jobs:
                shutil.rmtree(self.folder, ignore_errors=True)
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
        """Queue jobs with one sbatch. Raises Full, or UserError with SLURM's reason."""
        self.heartbeat()
        needed = {a for job in jobs for s in stages_of(job) for a in lineage(self.stages, s)}
        submission = Submission(
            store=self.store.root,
            sweep=self.sweep,
            run=group.run,
            cluster=group.cluster,
            stages={stage: config for stage, config in self.stages.items() if stage in needed},
            parts=jobs,
            snapshot=self.snapshot,
            plugins=self.plugins,
        )
        folder = self.folder / str(self.arrays)
        self.arrays += 1
        after = f"afterany:{':'.join(_shortened(group.after))}" if group.after else None
        job = _send(submission, folder, self.work, after, self.heartbeat)
        self.submitted.jobs += [f"{job}_{i}" for i in range(len(jobs))] if len(jobs) > 1 else [job]


def resubmit(submission: Submission, part: int, attempts: int, work: Callable[..., Any]) -> str:
    """Queue one part again as a new job, the successor of the job that calls this; returns its id.

    `attempts`: how many runs of the part there were before this job's last one.
    """
    successor = replace(submission, parts=[submission.parts[part]], attempts=attempts + 1)
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

    `folder` is made for it. Raises Full, or UserError with SLURM's reason.
    """
    sweep_folder = Store(submission.store).sweep_folder(submission.sweep)
    name = f"{submission.sweep}-{folder.parent.name.rpartition('-')[2]}-{folder.name}"
    path = folder / "submission.json"
    code = submission.snapshot
    assert code is not None

    def try_once() -> str:
        slurm.cancel_named(name)  # and remove all that an earlier try left
        shutil.rmtree(folder, ignore_errors=True)
        private_folder(folder)
        submission.write(path)
        executor = _executor(submission.cluster, submission.run, folder, code, name)
        if dependency is not None:
            executor.update_parameters(dependency=dependency)
        numbers = range(len(submission.parts))
        try:
            jobs = executor.map_array(work, [str(path)] * len(numbers), numbers)
        except (FailedJobError, FailedSubmissionError) as error:
            if any(text in str(error) for text in slurm.DOWN):
                raise SlurmDown(_reason(error)) from error
            raise
        return str(jobs[0].job_id).partition("_")[0]

    stages = [stages_of(job) for job in submission.parts]
    job_registry.record_submission(sweep_folder, name, stages, folder)
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
        raise UserError(f"SLURM refused the job: {reason}") from error
    job_registry.record_job_id(sweep_folder, name, job)
    return job


def _shortened(jobs: Collection[str]) -> list[str]:
    """Return jobs to wait for as a short list: the whole array for several of its elements."""
    elements: dict[str, list[str]] = {}
    for job in sorted(jobs):
        elements.setdefault(job.partition("_")[0], []).append(job)
    return [ids[0] if len(ids) == 1 else array for array, ids in elements.items()]


@contextlib.contextmanager
def as_from_login_node(cluster: ClusterConfig) -> Iterator[None]:
    """Run without the variables of a surrounding job, which sbatch reads as options.

    The user's `SBATCH_*` variables go, too, because they are stronger than a profile
    (`SBATCH_JOB_NAME` would hide jobs from the next launch). Those of partition, account, qos and
    constraint stay where the profile leaves the choice open.
    """
    open_choices = [f"SBATCH_{key.upper()}" for key in CHOICES if not getattr(cluster.slurm, key)]
    kept = {k: os.environ[k] for k in (*SITE_VARIABLES, *open_choices) if k in os.environ}
    with clean_env():
        os.environ.update(kept)
        yield


def check(
    cluster: ClusterConfig,
    run: RunConfig,
    folder: Path,
    code: Path,
    heartbeat: Callable[[], None] = lambda: None,
) -> None:
    """Ask SLURM whether it would accept such a job (`sbatch --test-only`).

    Raises UserError with SLURM's own reason. Limits on the number of jobs show only at submission.
    """
    extra = {key: value for key, value in cluster.slurm.extra.items() if key not in HOLDING}
    at_once = cluster.model_copy(
        update={"slurm": cluster.slurm.model_copy(update={"extra": extra})}
    )
    executor = _executor(at_once, run, folder, code, "check")
    script = folder / "check.sh"
    script.write_text(executor._make_submission_file_text("true", "check"))

    def sbatch(option: str) -> str:
        return slurm.until_up(lambda: slurm.call("sbatch", option, str(script)), heartbeat)

    try:
        with as_from_login_node(cluster):
            try:
                sbatch("--test-only")
            except RuntimeError as error:
                if UNSURE not in str(error):
                    raise
                # SLURM says this of nodes that are temporarily down, too. A real submission tells
                # the two apart; if its job starts, it runs `true`.
                job = sbatch("--parsable").strip().partition(";")[0]
                with contextlib.suppress(SlurmDown):
                    why = slurm.call("squeue", "--noheader", "--format=%r", "--jobs", job).strip()
                    slurm.call("scancel", job)
                    if why in NEVER:  # with EnforcePartLimits off, SLURM accepts such a job
                        raise RuntimeError(f"{error} ({why})") from error
    except RuntimeError as error:
        reason = str(error).removeprefix("sbatch: ").replace("sbatch: error: ", "")
        raise UserError(
            f"SLURM would not accept jobs of cluster={cluster.name}: {reason}. Correct the profile "
            f"slurm/cluster/{cluster.name}.yaml, or a key on the command line, such as "
            "cluster.slurm.partition=NAME; nothing was queued"
        ) from error
    finally:
        script.unlink(missing_ok=True)


def _executor(
    cluster: ClusterConfig, run: RunConfig, folder: Path, code: Path, name: str
) -> SlurmExecutor:
    """Return submitit's executor for jobs of a profile. Raises UserError where it contradicts."""
    profile = cluster.slurm
    if run.processes % profile.nodes:
        raise UserError(
            f"run.processes={run.processes} cannot be shared equally by cluster.slurm.nodes="
            f"{profile.nodes}: make it a multiple"
        )
    tasks = run.processes // profile.nodes
    if cluster.gpus_per_node and tasks != cluster.gpus_per_node:
        raise UserError(
            f"run.processes={run.processes} on {profile.nodes} node(s) are {tasks} rank(s) for "
            f"cluster.gpus_per_node={cluster.gpus_per_node}, and each rank uses one GPU: set "
            f"run.processes={profile.nodes * cluster.gpus_per_node} or "
            f"cluster.gpus_per_node={tasks}"
        )
    if profile.signal_seconds >= cluster.timeout_min * 60:
        raise UserError(
            f"cluster.slurm.signal_seconds={profile.signal_seconds} is not less than the time "
            f"limit of {cluster.timeout_min} minutes: jobs would only ever save"
        )
    executor = SlurmExecutor(
        folder=folder,
        max_num_timeout=UNLIMITED,
        python=profile.python or shlex.quote(sys.executable),
    )
    chosen = {
        "partition": profile.partition,
        "account": profile.account,
        "qos": profile.qos,
        "constraint": profile.constraint,
        "mem": f"{max(1, int(profile.mem_gb * 1024))}M" if profile.mem_gb else None,
        "gpus_per_node": cluster.gpus_per_node or None,
    }
    executor.update_parameters(
        job_name=name,
        time=cluster.timeout_min,
        nodes=profile.nodes,
        ntasks_per_node=tasks,
        cpus_per_task=profile.cpus_per_task,
        signal_delay_s=profile.signal_seconds,
        array_parallelism=cluster.workers,
        stderr_to_stdout=True,
        setup=[
            # The copy of the code comes before the checkout in whose folder a job may start. An
            # empty entry would stand for that folder.
            f"export PYTHONPATH={shlex.quote(str(code))}${{PYTHONPATH:+:$PYTHONPATH}}",
            "export PYTHONSAFEPATH=1",
            *profile.setup,
        ],
        # Without --kill-on-bad-exit, the other ranks would continue after one was killed. SLURM
        # 22.05 to 23.02 do not pass --cpus-per-task from sbatch to srun.
        srun_args=["--kill-on-bad-exit=1", f"--cpus-per-task={profile.cpus_per_task}"],
        additional_parameters={
            "requeue" if profile.requeue else "no-requeue": True,
            **profile.extra,
        },
        **{key: value for key, value in chosen.items() if value is not None},
    )
    return executor


def _reason(error: Exception) -> str:
    """Return SLURM's error lines from submitit's exception, or the last line of it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    errors = [line for line in lines if "error:" in line]
    return " ".join(errors or lines[-1:])
