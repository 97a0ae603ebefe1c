"""Submission to SLURM: job arrays with a running cap, through submitit, and nothing left behind.

`launch` returns when all is queued. What is queued already is known from the sweep's `jobs.jsonl`
and one question to the scheduler, so that a repeated launch never queues a stage twice.
"""

from __future__ import annotations

import random
import shlex
import shutil
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

from submitit.core.utils import FailedJobError, FailedSubmissionError
from submitit.slurm.slurm import SlurmExecutor

from harness.cluster import slurm, worker
from harness.cluster.slurm import SlurmDown
from harness.cluster.submit import job_folder
from harness.cluster.worker import Submission
from harness.errors import UserError
from harness.schema import ClusterConfig, RunConfig
from harness.store.files import append_line

Answer = TypeVar("Answer")
DOWN_SECONDS = 120.0
"""How long a controller that does not answer is tried again."""


def submit(
    submission: Submission, cluster: ClusterConfig, sweep_folder: Path, snapshot: Path
) -> list[str]:
    """Queue a job per part, in random order, as arrays within the site's limit; their ids.

    Random order: a half-finished sweep is an unbiased sample. Raises UserError with SLURM's own
    reason, after its files were taken away again.
    """
    random.Random(submission.parts[0][0][0]).shuffle(submission.parts)
    folder = job_folder(sweep_folder)
    path = folder / "submission.json"
    submission.write(path)
    executor = _executor(folder, submission.run, cluster, snapshot, sweep_folder.name)
    size = min(_answered(slurm.largest_array), 10_000)
    jobs: list[str] = []
    for start in range(0, len(submission.parts), size):
        numbers = list(range(start, min(start + size, len(submission.parts))))
        paths = [str(path)] * len(numbers)
        try:
            made = _answered(partial(executor.map_array, worker.work, paths, numbers))
        except (FailedJobError, FailedSubmissionError, ValueError) as error:
            if not jobs:
                shutil.rmtree(folder, ignore_errors=True)
            raise UserError(f"SLURM refused the job: {_reason(error)}") from error
        array = len(numbers) > 1
        head = made[0].job_id.partition("_")[0]
        parts = [[s for gang in submission.parts[n] for s in gang] for n in numbers]
        append_line(
            sweep_folder / "jobs.jsonl",
            {"job": head, "array": array, "parts": parts, "folder": str(folder)},
        )
        jobs += [job.job_id for job in made]
    return jobs


def _executor(
    folder: Path, run: RunConfig, cluster: ClusterConfig, snapshot: Path, name: str
) -> SlurmExecutor:
    asked = cluster.slurm
    if run.processes % asked.nodes:
        raise UserError(
            f"run.processes={run.processes} cannot be shared equally by cluster.slurm.nodes="
            f"{asked.nodes}: make it a multiple"
        )
    executor = SlurmExecutor(
        folder=folder, max_num_timeout=0, python=asked.python or shlex.quote(sys.executable)
    )
    chosen = {
        "partition": asked.partition,
        "account": asked.account,
        "qos": asked.qos,
        "constraint": asked.constraint,
        "mem": f"{int(asked.mem_gb * 1024)}M" if asked.mem_gb else None,
        "gpus_per_node": cluster.gpus_per_node or None,
    }
    executor.update_parameters(
        job_name=name,
        time=cluster.timeout_min,
        nodes=asked.nodes,
        ntasks_per_node=run.processes // asked.nodes,
        cpus_per_task=asked.cpus_per_task,
        signal_delay_s=asked.signal_seconds,
        array_parallelism=cluster.workers,
        stderr_to_stdout=True,
        setup=[f"export PYTHONPATH={shlex.quote(str(snapshot))}:$PYTHONPATH", *asked.setup],
        # without the first a rank whose sibling was killed runs on; SLURM 22.05 to 23.02 do not
        # hand the second on to srun
        srun_args=["--kill-on-bad-exit=1", f"--cpus-per-task={asked.cpus_per_task}"],
        additional_parameters=dict(asked.extra),
        **{key: value for key, value in chosen.items() if value is not None},
    )
    return executor


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if "error:" in line]
    return " ".join(told or lines[-1:])


def _answered(ask: Callable[[], Answer]) -> Answer:
    """`ask()`, again while the controller is down, until a deadline."""
    deadline = time.monotonic() + DOWN_SECONDS
    while True:
        try:
            return ask()
        except (SlurmDown, FailedJobError, FailedSubmissionError) as error:
            down = isinstance(error, SlurmDown) or any(text in str(error) for text in slurm.DOWN)
            if not down:
                raise
            if time.monotonic() > deadline:
                raise UserError(
                    f"the SLURM controller did not answer for {DOWN_SECONDS:.0f} s "
                    f"({_reason(error)}); nothing more was queued: launch again when it is back"
                ) from error
            print("the SLURM controller does not answer, trying again", file=sys.stderr)
            time.sleep(5.0)
