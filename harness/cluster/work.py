"""What a job runs: submitit calls `Work` with the path of a submission and the number of a part.

So the pickle does not hold any state. After any fault, the store says what is left to do.
This module imports neither torch nor the training code, so that submitting is fast and a job
listens for signals before it spends seconds on imports.
"""

from __future__ import annotations

import contextlib
import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from submitit.helpers import Checkpointable

from harness.cluster import environment, slurm
from harness.cluster.job_registry import reason_to_give_up
from harness.cluster.rendezvous import export_rank_variables
from harness.cluster.slurm_jobs import Full, resubmit
from harness.cluster.stop_flag import StopFlag
from harness.cluster.submission import JobContext, Submission
from harness.data import node
from harness.errors import UserError
from harness.plugins import set_plugin_files

if TYPE_CHECKING:
    from harness.cluster.worker import Worker

STOPPED = 85
"""Reserved exit code of a job that was stopped and has more to do."""
STORAGE_TRIES = 50
"""Requeues, and successors, after which a job no longer tries a store that it cannot write to."""


class Work(Checkpointable):
    """Train what a part of a submission still lacks.

    Returns how it ended and why: "finished", "gave up", "storage", or for a worker on this machine
    "stopped". It is Checkpointable so that submitit requeues the job unchanged after a signal that
    comes before `StopFlag` listens.
    """

    def __call__(self, path: str, part: int = 0) -> tuple[str, str]:
        """Run the whole job; ends with exit code `STOPPED` when a SLURM job has more to do."""
        stop = StopFlag().install()
        for stream in (sys.stdout, sys.stderr):  # names of files may hold any bytes
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
        environment.clean_worker()
        folder = Path(path).parent
        submission = Submission.read(Path(path))
        if submission.plugins:
            set_plugin_files(submission.plugins)
        if submission.launcher is not None:
            stop.watch(*submission.launcher)
            node.share(submission.cluster.workers)
        # imports torch, for seconds
        from harness.cluster.recording import record_failed_start
        from harness.cluster.worker import Worker
        from harness.train import connected

        with contextlib.ExitStack() as stack:
            try:
                reason = export_rank_variables(folder, reason_to_give_up(folder))
                if reason is not None:
                    print(f"the job gave up: {reason}", flush=True)
                    return "gave up", reason
                world = stack.enter_context(connected(submission.run))
            except Exception as error:
                if slurm.this_job() is None and isinstance(error, UserError):
                    return "gave up", str(error)
                record_failed_start(submission, part, folder, error)
                raise
            worker = Worker(JobContext(submission, part, folder, world, stop))
            end, why = self._run(worker)
        if end == "stopped" and slurm.this_job() is not None:
            raise SystemExit(STOPPED)
        print(f"the job {end}{f': {why}' if why else ''}", flush=True)
        return end, why

    def _run(self, worker: Worker) -> tuple[str, str]:
        """Run a worker to its end, then requeue its job where there is more to do."""
        context, world = worker.context, worker.world
        try:
            end, why = worker.run()
        except Exception:
            if worker.should_restart and context.in_slurm:  # the other ranks hang
                self._continue_job(worker)
            raise
        tries = context.submission.attempts + context.attempt
        is_continued = end == "stopped" or (end == "storage" and tries < STORAGE_TRIES)
        if context.in_slurm and world.rank == 0 and is_continued:
            self._continue_job(worker)
        if end != "storage":  # which only rank 0 meets
            # All ranks leave together: SLURM kills the others once one ends with an exit code, and
            # rank 0 hosts the TCPStore that connects them.
            world.any(False)
        return end, why

    def _continue_job(self, worker: Worker) -> None:
        """Requeue exactly this job, or submit its successor where requeueing is impossible."""
        context = worker.context
        if context.submission.cluster.slurm.requeue and slurm.requeue(context.job):
            return
        attempts = context.submission.attempts + context.attempt
        try:
            if slurm.is_running(context.job):
                # several ranks may fail side by side: one of them creates this file
                (context.folder / f"successor-{context.job}-{attempts}").touch(exist_ok=False)
                job = resubmit(context.submission, context.part, attempts, self)
                print(f"goes on as job {job}", flush=True)
        except FileExistsError:
            return
        except (UserError, Full, OSError, RuntimeError, slurm.SlurmDown) as error:
            print(f"note: no successor was submitted ({error}); launch again", flush=True)
