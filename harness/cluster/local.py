"""From a submission to jobs, through submitit's executors."""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import time
import uuid
from pathlib import Path

from submitit.core.core import Job
from submitit.core.utils import FailedJobError, UncompletedJobError
from submitit.local.local import LocalExecutor

from harness.cluster.submission import Submission
from harness.cluster.worker import Work
from harness.cluster_schema import ClusterConfig
from harness.errors import UserError
from harness.files import CannotWrite, atomic_write, explained, make_folder
from harness.store.claims import process_start

STOP_SECONDS = 60.0
"""How long a stopping worker may take to reach a step boundary and save."""


def private_folder(path: Path) -> Path:
    """A folder that only its owner can write: submitit's pickles lie there and run on loading.

    Raises UserError when it exists and is another user's or writable by others.
    """
    make_folder(path.parent)
    with explained(path):
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=0o700)
        found = path.stat()
    if found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o022:
        raise UserError(
            f"{path} is another user's or writable by others, and what lies there is executed: "
            f"make it yours alone (chown, chmod 700), or choose another store with store=PATH"
        )
    return path


def devices(cluster: ClusterConfig, processes: int) -> list[tuple[int, ...]]:
    """The GPUs that each worker of this machine sees: its own where there are enough of them.

    `cluster.gpus_per_node` of them in all, of those that CUDA_VISIBLE_DEVICES leaves. Raises
    UserError where there are fewer, or where it names them in another way than by number.
    """
    said = os.environ.get("CUDA_VISIBLE_DEVICES")
    asked = cluster.gpus_per_node
    numbers = [str(n) for n in range(asked)] if said is None else said.replace(" ", "").split(",")
    if asked and not all(number.isdecimal() for number in numbers[:asked]):
        raise UserError(
            f"CUDA_VISIBLE_DEVICES={said} and cluster.gpus_per_node={asked}: name GPUs by number, "
            "such as CUDA_VISIBLE_DEVICES=0,1, or leave it unset"
        )
    if len(numbers) < asked:
        raise UserError(
            f"CUDA_VISIBLE_DEVICES={said} leaves {len(numbers)} GPUs, and the workers ask for "
            f"cluster.gpus_per_node={asked}: ask for fewer, or leave it unset"
        )
    each = min(asked, max(processes, asked // cluster.workers))
    return [
        tuple(int(numbers[(worker * each + i) % asked]) for i in range(each))
        for worker in range(cluster.workers)
    ]


def job_folder(sweep_folder: Path) -> Path:
    """A fresh private folder for one submission's files, pickles and logs."""
    name = f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:6]}"
    return private_folder(private_folder(sweep_folder / "logs") / name)


class LocalJobs:
    """Worker processes on this machine; they end when the process that made them ends."""

    def __init__(self, submission: Submission, cluster: ClusterConfig, sweep_folder: Path):
        self.folder = job_folder(sweep_folder)
        self.path = self.folder / "submission.json"
        submission.write(self.path)
        self.executor = LocalExecutor(folder=self.folder, max_num_timeout=0)
        self.executor.update_parameters(
            tasks_per_node=submission.run.processes,
            timeout_min=cluster.timeout_min,
            stderr_to_stdout=True,
        )
        self.devices = devices(cluster, submission.run.processes)
        self.jobs: list[Job[tuple[str, str]]] = []
        self.places: dict[str, int] = {}  # job id -> which of the workers it is

    def start(self, place: int) -> None:
        """Start worker number `place`. It ignores Ctrl-C: its launcher hears that and stops it.

        Raises CannotWrite where the store does not take its files.
        """
        seen = self.devices[place % len(self.devices)]
        self.executor.update_parameters(gpus_per_node=len(seen), visible_gpus=seen)
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            with explained(self.folder):
                job = self.executor.submit(Work(), str(self.path))
        finally:
            signal.signal(signal.SIGINT, before)
        self.jobs.append(job)
        self.places[job.job_id] = place

    def running(self) -> int:
        """How many workers are alive."""
        return sum(not job.done() for job in self.jobs)

    def ended(self, job: Job[tuple[str, str]]) -> tuple[str, str]:
        """How a worker that is no longer alive ended: a word and a sentence."""
        with contextlib.suppress(FailedJobError, UncompletedJobError, OSError):
            if job.paths.result_pickle.exists():
                return job.task(0).result()
        try:  # a worker cannot say that it could not write where it could not write
            atomic_write(self.folder / "probe", b"")
        except CannotWrite as error:
            return "storage", str(error)
        return "died", f"a worker died; the end of its log is in {job.paths.stdout}"

    def stop(self, seconds: float = STOP_SECONDS) -> None:
        """Ask every worker to save and leave; after `seconds` end what is left by its PID."""
        pids = [int(job.job_id) for job in self.jobs if not job.done()]
        tasks = {pid: process_start(pid) for parent in pids for pid in _children(parent)}
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)  # submitit's controller hands it to its tasks
        deadline = time.monotonic() + seconds
        while self.running() and time.monotonic() < deadline:
            time.sleep(0.05)
        for pid, started in tasks.items():
            if started is not None and process_start(pid) == started:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def _children(pid: int) -> list[int]:
    try:
        return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
