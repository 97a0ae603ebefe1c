"""Worker processes on this machine, through submitit's local executor."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

from submitit.core.core import Job
from submitit.core.utils import FailedJobError, UncompletedJobError
from submitit.local.local import LocalExecutor

from harness.cluster.launch_folder import new_launch_folder
from harness.cluster.submission import Submission
from harness.cluster.work import Work
from harness.cluster_schema import ClusterConfig
from harness.errors import UserError
from harness.files import CannotWrite, atomic_write, explained
from harness.store.claims import has_ended, process_start

STOP_SECONDS = 60.0
"""How long a stopping worker may take to reach a step boundary and save."""


def assign_gpus(cluster: ClusterConfig, processes: int) -> list[tuple[int, ...]]:
    """Return the numbers of the GPUs that each worker of this machine sees.

    The first `cluster.gpus_per_node` GPUs of CUDA_VISIBLE_DEVICES are assigned. If there are enough
    for all workers, each gets its own. Raises UserError if CUDA_VISIBLE_DEVICES lists fewer GPUs,
    or does not list numbers.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = cluster.gpus_per_node
    if visible is None:
        numbers = [str(number) for number in range(count)]
    else:
        numbers = [word.strip() for word in visible.split(",") if word.strip()]
    if count and not all(number.isdecimal() for number in numbers[:count]):
        raise UserError(
            f"CUDA_VISIBLE_DEVICES={visible} and cluster.gpus_per_node={count}: name GPUs by "
            "number, such as CUDA_VISIBLE_DEVICES=0,1, or leave it unset"
        )
    if len(numbers) < count:
        raise UserError(
            f"CUDA_VISIBLE_DEVICES={visible} lists {len(numbers)} GPUs, fewer than "
            f"cluster.gpus_per_node={count}: set a smaller number, or unset CUDA_VISIBLE_DEVICES"
        )
    gpus_per_worker = min(count, max(processes, count // cluster.workers))
    return [
        tuple(int(numbers[(worker * gpus_per_worker + i) % count]) for i in range(gpus_per_worker))
        for worker in range(cluster.workers)
    ]


class LocalWorkers:
    """Worker processes of this machine; they end when the process that started them ends."""

    def __init__(self, submission: Submission, cluster: ClusterConfig, sweep_folder: Path):
        self.folder = new_launch_folder(sweep_folder)
        self.path = self.folder / "submission.json"
        submission.write(self.path)
        self.executor = LocalExecutor(folder=self.folder, max_num_timeout=0)
        self.executor.update_parameters(
            tasks_per_node=submission.run.processes,
            timeout_min=cluster.timeout_min,
            stderr_to_stdout=True,
        )
        self.gpus = assign_gpus(cluster, submission.run.processes)
        self.jobs: list[Job[tuple[str, str]]] = []
        self.number_of: dict[str, int] = {}  # job id -> number of the worker

    def start(self, number: int) -> None:
        """Start worker `number`. It ignores Ctrl-C, because the launcher then stops all workers.

        Raises CannotWrite where its files cannot be written to the store.
        """
        gpus = self.gpus[number % len(self.gpus)]
        self.executor.update_parameters(gpus_per_node=len(gpus), visible_gpus=gpus)
        handler_before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            with explained(self.folder):
                job = self.executor.submit(Work(), str(self.path))
        finally:
            signal.signal(signal.SIGINT, handler_before)
        self.jobs.append(job)
        self.number_of[job.job_id] = number

    def count_alive(self) -> int:
        """Return how many workers are alive."""
        return sum(not job.done() for job in self.jobs)

    def outcome(self, job: Job[tuple[str, str]]) -> tuple[str, str]:
        """Return how an ended worker ended, and why.

        This is the result of `Work`, if the worker wrote one. Otherwise the end is "storage" if the
        store cannot be written, and else "died".
        """
        with contextlib.suppress(FailedJobError, UncompletedJobError, OSError):
            if job.paths.result_pickle.exists():
                return job.task(0).result()
        try:
            atomic_write(self.folder / "probe", b"")
        except CannotWrite as error:
            return "storage", str(error)
        return "died", f"a worker died; the end of its log is in {job.paths.stdout}"

    def stop(self, seconds: float = STOP_SECONDS) -> None:
        """Ask every worker to save and end; after `seconds` kill those that are left."""
        pids = [int(job.job_id) for job in self.jobs if not job.done()]
        tasks = {pid: process_start(pid) for parent in pids for pid in _children(parent)}
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)  # submitit's controller passes it on to its tasks
        deadline = time.monotonic() + seconds
        while self.count_alive() and time.monotonic() < deadline:
            time.sleep(0.05)
        for pid, started in tasks.items():
            if started and not has_ended(pid, started):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def _children(pid: int) -> list[int]:
    """Return the PIDs of a process's children."""
    try:
        return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
