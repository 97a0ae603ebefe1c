"""Submission to SLURM: job arrays with a running cap, through submitit, and nothing left behind.

`launch` returns when all is queued. Every array has a folder of its own with a `submission.json`;
its elements are numbered as that file's parts. The second jobs of all chains are an array too, each
element of which starts after the same element of the first (`aftercorr`), and so on.
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

from submitit.core.utils import FailedJobError, FailedSubmissionError
from submitit.helpers import clean_env
from submitit.slurm.slurm import SlurmExecutor

from harness.cluster import queued, slurm, snapshot
from harness.cluster.local import job_folder, private_folder
from harness.cluster.slurm import SlurmDown
from harness.cluster.submission import Submission
from harness.cluster_schema import ClusterConfig
from harness.errors import UserError
from harness.schema import RunConfig, StageConfig
from harness.store.store import Store
from harness.sweep.jobs import Chains, Job, stages_of
from harness.sweep.plan import lineage

LIMITS = (
    "SubmitJob", "MaxJobsPU", "SubmitLimit", "MaxArraySize",
    "job array specification", "temporarily unable to accept",
)  # fmt: skip
"""In SLURM's reason when a smaller array, or a later one, might pass."""
UNSURE = "Requested node configuration is not available"
NEVER = ("PartitionConfig", "PartitionNodeLimit", "PartitionTimeLimit", "BadConstraints")
LATER = ("begin", "hold")  # of held jobs SLURM checks nothing
FOR_EVER = 1_000_000  # requeues that submitit lets pass
SITE = ("SLURM_CONF", "SLURM_JWT", "SLURM_CLUSTERS")
CHOICES = ("partition", "account", "qos", "constraint")


@dataclass
class Queue:
    """What was handed over, and how many stages found no room."""

    jobs: list[str] = field(default_factory=list)
    refused: int = 0
    why: str = ""


class Full(Exception):
    """The site takes no more jobs of this user for now."""


class Submitter:
    """Hands one launch to SLURM."""

    def __init__(
        self,
        store: Store,
        sweep: str,
        stages: Mapping[str, StageConfig],
        beat: Callable[[], None] = lambda: None,
    ):
        self.store, self.sweep, self.stages = store, sweep, stages
        self.sweep_folder = store.sweep_folder(sweep)
        self.folder = job_folder(self.sweep_folder)
        self.snapshot = snapshot.take(self.folder)
        self.plugins = snapshot.take_plugins(self.folder)
        self.beat = beat
        self.arrays = 0
        self.queue = Queue()

    def submit(self, groups: list[Chains]) -> Queue:
        """Queue every chain, in random order: a half-finished sweep is then an unbiased sample.

        Raises UserError with SLURM's own reason, before anything is queued where SLURM can tell.
        """
        try:
            asked: list[tuple[ClusterConfig, RunConfig]] = []
            for group in groups:
                if (group.cluster, group.run) not in asked:
                    asked.append((group.cluster, group.run))
                    check(group.cluster, group.run, self.folder, self.snapshot, self.beat)
            size = min(slurm.patiently(slurm.largest_array, self.beat), 10_000)
            for group in groups:
                chains = list(group.chains)
                random.Random(self.folder.name).shuffle(chains)
                chains.sort(key=len, reverse=True)  # stable: only longer chains go first
                for start in range(0, len(chains), size):
                    self._batch(group, chains[start : start + size])
        finally:
            if not self.queue.jobs:
                shutil.rmtree(self.folder, ignore_errors=True)
        return self.queue

    def _batch(self, group: Chains, chains: list[list[Job]]) -> None:
        """Chains as arrays of one length; in halves where the site's limits ask for it."""
        if self.queue.refused:  # nothing after the first that found no room
            self._refuse(chains, self.queue.why)
            return
        after = f"afterany:{':'.join(_whole(group.after))}" if group.after else None
        try:
            previous = self._array(group, chains, after)
        except Full as full:
            if len(chains) == 1:
                self._refuse(chains, str(full))
                return
            middle = len(chains) // 2
            self._batch(group, chains[:middle])
            self._batch(group, chains[middle:])
            return
        was_array = len(chains) > 1
        for level in range(1, len(chains[0])):
            rests = [chain[level:] for chain in chains if len(chain) > level]
            kind = "aftercorr" if len(rests) > 1 else "afterok"
            element = "_0" if was_array and len(rests) == 1 else ""
            try:
                previous = self._array(group, rests, f"{kind}:{previous}{element}")
            except Full as full:
                self._refuse(rests, str(full))
                return
            was_array = len(rests) > 1

    def _refuse(self, chains: list[list[Job]], why: str) -> None:
        self.queue.refused += sum(len(stages_of(job)) for chain in chains for job in chain)
        self.queue.why = why

    def _array(self, group: Chains, chains: list[list[Job]], dependency: str | None) -> str:
        """One sbatch for the first job of each chain; its id.

        Raises Full, or UserError with SLURM's reason.
        """
        self.beat()
        jobs = [chain[0] for chain in chains]
        whole = [stage for chain in chains for job in chain for stage in stages_of(job)]
        needed = {a for stage in whole for a in lineage(self.stages, stage)}
        submission = Submission(
            store=self.store.root,
            sweep=self.sweep,
            run=group.run,
            cluster=group.cluster,
            stages={stage: config for stage, config in self.stages.items() if stage in needed},
            parts=jobs,
            later=[chain[1:] for chain in chains],
            snapshot=self.snapshot,
            plugins=self.plugins,
        )
        name = f"{self.sweep}-{self.folder.name.rpartition('-')[2]}-{self.arrays}"
        folder = private_folder(self.folder / str(self.arrays))
        self.arrays += 1
        queued.note(self.sweep_folder, name, [stages_of(job) for job in jobs], folder)
        job = send(submission, folder, name, dependency, self.beat)
        queued.note_id(self.sweep_folder, name, job)
        self.queue.jobs += [f"{job}_{i}" for i in range(len(jobs))] if len(jobs) > 1 else [job]
        return job


def send(
    submission: Submission,
    folder: Path,
    name: str,
    dependency: str | None = None,
    beat: Callable[[], None] = lambda: None,
) -> str:
    """Write a submission and queue its parts; the id of the job or array.

    What a failed attempt left behind, in the folder or in the queue, is taken away first.
    """
    from harness.cluster.worker import Work

    code = submission.snapshot
    assert code is not None
    path = folder / "submission.json"
    numbers = list(range(len(submission.parts)))
    tried = False

    def attempt() -> str:
        nonlocal tried
        if tried:
            slurm.cancel_named(name)
            shutil.rmtree(folder)
            private_folder(folder)
        tried = True
        submission.write(path)
        executor = _executor(submission.cluster, submission.run, folder, code, name)
        if dependency is not None:
            executor.update_parameters(dependency=dependency)
            executor.parameters["additional_parameters"]["kill-on-invalid-dep"] = "yes"
        try:
            made = executor.map_array(Work(), [str(path)] * len(numbers), numbers)
        except (FailedJobError, FailedSubmissionError) as error:
            if any(text in str(error) for text in slurm.DOWN):
                raise SlurmDown(_reason(error)) from error
            raise
        return str(made[0].job_id).partition("_")[0]

    try:
        with as_from_login_node(submission.cluster):
            return slurm.patiently(attempt, beat)
    except (FailedJobError, FailedSubmissionError, ValueError) as error:
        with contextlib.suppress(SlurmDown):
            slurm.cancel_named(name)  # taken, but its answer not understood
        shutil.rmtree(folder, ignore_errors=True)
        reason = _reason(error)
        if any(word in reason for word in LIMITS):
            raise Full(reason) from error
        raise UserError(f"SLURM refused the job: {reason}") from error


def resubmit(submission: Submission, part: int, attempts: int) -> str:
    """Queue one part again, from within its own job, and the rest of its chain; the new job's id.

    SLURM takes the jobs that waited for this one away, since it does not end well. `attempts`: how
    often this job, too, was put back.
    """
    sweep_folder = Store(submission.store).sweep_folder(submission.sweep)
    fresh = job_folder(sweep_folder)
    chain = [submission.parts[part], *submission.later[part]]
    ids: list[str] = []
    for level, content in enumerate(chain):
        successor = replace(
            submission,
            parts=[content],
            later=[chain[level + 1 :]],
            attempts=attempts + 1 if level == 0 else 0,
        )
        name = f"{submission.sweep}-{fresh.name.rpartition('-')[2]}-{level}"
        folder = private_folder(fresh / str(level))
        queued.note(sweep_folder, name, [stages_of(content)], folder)
        ids.append(send(successor, folder, name, f"afterok:{ids[-1]}" if ids else None))
        queued.note_id(sweep_folder, name, ids[-1])
    return ids[0]


def _whole(jobs: Collection[str]) -> list[str]:
    """Jobs to wait for, in few words: an array where it is more than one of its elements."""
    elements: dict[str, list[str]] = {}
    for job in sorted(jobs):
        elements.setdefault(job.partition("_")[0], []).append(job)
    return [found[0] if len(found) == 1 else array for array, found in elements.items()]


@contextlib.contextmanager
def as_from_login_node(cluster: ClusterConfig) -> Iterator[None]:
    """No variables of a job around us, which sbatch takes for options, nor of the user's `SBATCH_`.

    Those are stronger than a profile (`SBATCH_JOB_NAME` would hide jobs from the next launch); of
    partition, account, qos and constraint they count where the profile leaves the choice open.
    """
    free = [f"SBATCH_{key.upper()}" for key in CHOICES if getattr(cluster.slurm, key) is None]
    kept = {key: os.environ[key] for key in (*SITE, *free) if key in os.environ}
    with clean_env():
        os.environ.update(kept)
        yield


def check(
    cluster: ClusterConfig,
    run: RunConfig,
    folder: Path,
    code: Path,
    beat: Callable[[], None] = lambda: None,
) -> None:
    """Ask SLURM whether it would take such a job (`sbatch --test-only`).

    Raises UserError with SLURM's own reason; what only its queue can tell is not asked for.
    """
    extra = {key: value for key, value in cluster.slurm.extra.items() if key not in LATER}
    at_once = cluster.model_copy(
        update={"slurm": cluster.slurm.model_copy(update={"extra": extra})}
    )
    executor = _executor(at_once, run, folder, code, "check")
    script = folder / "check.sh"
    script.write_text(executor._make_submission_file_text("true", "check"))
    try:
        with as_from_login_node(cluster):
            try:
                slurm.patiently(lambda: slurm.call("sbatch", "--test-only", str(script)), beat)
            except RuntimeError as error:
                if UNSURE not in str(error):
                    raise
                # said of nodes that are down for the moment, too: a real submission tells them
                # apart; should it start, it runs `true`
                job = slurm.patiently(lambda: slurm.call("sbatch", "--parsable", str(script)), beat)
                job = job.strip().partition(";")[0]
                with contextlib.suppress(SlurmDown):
                    why = slurm.call("squeue", "--noheader", "--format=%r", "--jobs", job).strip()
                    slurm.call("scancel", job)
                    if why in NEVER:  # queued all the same, where EnforcePartLimits is off
                        raise RuntimeError(f"{error} ({why})") from error
    except RuntimeError as error:
        reason = str(error).removeprefix("sbatch: ").replace("sbatch: error: ", "")
        raise UserError(
            f"SLURM would not take jobs of cluster={cluster.name}: {reason}. Correct the profile "
            f"slurm/cluster/{cluster.name}.yaml or say it better, as in cluster.slurm.partition="
            "NAME; nothing was queued"
        ) from error
    finally:
        script.unlink(missing_ok=True)


def _executor(
    cluster: ClusterConfig, run: RunConfig, folder: Path, code: Path, name: str
) -> SlurmExecutor:
    asked = cluster.slurm
    if run.processes % asked.nodes:
        raise UserError(
            f"run.processes={run.processes} cannot be shared equally by cluster.slurm.nodes="
            f"{asked.nodes}: make it a multiple"
        )
    tasks = run.processes // asked.nodes
    if cluster.gpus_per_node and tasks != cluster.gpus_per_node:
        raise UserError(
            f"run.processes={run.processes} on {asked.nodes} node(s) are {tasks} rank(s) for "
            f"cluster.gpus_per_node={cluster.gpus_per_node}, and each rank uses one GPU: say "
            f"run.processes={asked.nodes * cluster.gpus_per_node} or cluster.gpus_per_node={tasks}"
        )
    if asked.signal_seconds >= cluster.timeout_min * 60:
        raise UserError(
            f"cluster.slurm.signal_seconds={asked.signal_seconds} is not less than the time limit "
            f"of {cluster.timeout_min} minutes: jobs would only ever save"
        )
    executor = SlurmExecutor(
        folder=folder, max_num_timeout=FOR_EVER, python=asked.python or shlex.quote(sys.executable)
    )
    chosen = {
        "partition": asked.partition,
        "account": asked.account,
        "qos": asked.qos,
        "constraint": asked.constraint,
        "mem": f"{max(1, int(asked.mem_gb * 1024))}M" if asked.mem_gb else None,
        "gpus_per_node": cluster.gpus_per_node or None,
    }
    executor.update_parameters(
        job_name=name,
        time=cluster.timeout_min,
        nodes=asked.nodes,
        ntasks_per_node=tasks,
        cpus_per_task=asked.cpus_per_task,
        signal_delay_s=asked.signal_seconds,
        array_parallelism=cluster.workers,
        stderr_to_stdout=True,
        # this copy of the code comes before the checkout that a job may be started in
        setup=[
            # (an empty entry would be that folder)
            f"export PYTHONPATH={shlex.quote(str(code))}${{PYTHONPATH:+:$PYTHONPATH}}",
            "export PYTHONSAFEPATH=1",
            *asked.setup,
        ],
        # without the first a rank whose sibling was killed runs on; SLURM 22.05 to 23.02 do not
        # hand the second on to srun
        srun_args=["--kill-on-bad-exit=1", f"--cpus-per-task={asked.cpus_per_task}"],
        additional_parameters={
            "requeue" if asked.requeue else "no-requeue": True,
            **asked.extra,
        },
        **{key: value for key, value in chosen.items() if value is not None},
    )
    return executor


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if "error:" in line]
    return " ".join(told or lines[-1:])
