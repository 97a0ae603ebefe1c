"""Stay with the local workers: show progress, replace those that died, stop them on Ctrl-C."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence

from harness.cluster import failure
from harness.cluster.local import LocalJobs
from harness.cluster.stop import StopFlag
from harness.schema import StageConfig
from harness.store.claims import look
from harness.store.store import Store

POLL_SECONDS = 0.5
LINE_SECONDS = 15.0  # between two lines where the output is no terminal
RESTARTS = 3
"""Workers that may die one after the other without a stage finished in between."""


class Progress:
    """Counts of trials and stages, kept up by looking only at what was not finished before."""

    def __init__(
        self,
        store: Store,
        stages: Mapping[str, StageConfig],
        paths: Sequence[Sequence[str]],
    ):
        self.store = store
        self.stages = stages
        self.paths = paths
        self.done = {stage for stage in stages if store.is_done(stage)}
        self.before = set(self.done)
        self.running: set[str] = set()
        self.failed: set[str] = set()
        self.started = time.monotonic()

    def update(self) -> None:
        """Look at the store again."""
        self.running.clear()
        for stage, config in self.stages.items():
            if stage in self.done or stage in self.failed:
                continue
            folder = self.store.folder(stage)
            if config.parent in self.failed:
                self.failed.add(stage)
            elif not folder.exists():
                continue
            elif self.store.is_done(stage):
                self.done.add(stage)
            elif (claim := look(folder, time.time())) is not None and claim.live:
                self.running.add(stage)
            elif failure.blocks(self.store.failures(stage)):
                self.failed.add(stage)

    def seconds_left(self) -> float | None:
        """From the pace of this launch; None before the first stage is done."""
        epochs = {stage: config.recipe.epochs for stage, config in self.stages.items()}
        new = sum(epochs[stage] for stage in self.done - self.before)
        left = sum(epochs[stage] for stage in epochs if stage not in self.done | self.failed)
        return (time.monotonic() - self.started) * left / new if new else None

    def line(self) -> str:
        """One line: trials done, running, failed, stages, time left."""
        trials = [path[-1] for path in self.paths]
        done = sum(stage in self.done for stage in trials)
        failed = sum(stage in self.failed for stage in trials)
        left = self.seconds_left()
        time_left = "time left unknown" if left is None else f"about {duration(left)} left"
        return (
            f"trials: {done} of {len(trials)} done, {failed} failed; "
            f"stages: {len(self.done)} of {len(self.stages)} done, {len(self.running)} running; "
            f"{time_left}"
        )


def duration(seconds: float) -> str:
    """`45 s`, `3 min 20 s`, `5 h 10 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def follow(jobs: LocalJobs, workers: int, progress: Progress, stop: StopFlag) -> tuple[str, str]:
    """Until the workers have ended or are told to stop; returns how it ended, and a sentence.

    "finished", "stopped" (by a signal to this process), "interrupted" (workers were stopped, and
    not by this process), "gave up" (the same failure again and again), "storage" (the store cannot
    be written), "died" (workers die without finishing a stage).
    """
    live = sys.stdout.isatty()
    printed = 0.0
    deaths, done_at_death = 0, -1
    interrupted = ""
    seen: set[str] = set()
    try:
        for place in range(workers):
            jobs.start(place)
        while True:
            for job in list(jobs.jobs):
                if job.job_id in seen or not job.done():
                    continue
                seen.add(job.job_id)
                end, why = jobs.ended(job)
                if end in ("gave up", "storage"):
                    return end, why
                if end == "stopped":
                    interrupted = f"a worker was stopped {why}, as it is at cluster.timeout_min"
                if end == "died":
                    progress.update()
                    deaths = deaths + 1 if len(progress.done) == done_at_death else 1
                    done_at_death = len(progress.done)
                    if deaths > RESTARTS:
                        return end, why
                    jobs.start(jobs.places[job.job_id])
            looked = time.monotonic()
            progress.update()
            looked = time.monotonic() - looked
            if live:
                print(f"\r\x1b[2K{progress.line()}", end="", flush=True)
            elif time.monotonic() - printed > LINE_SECONDS:
                printed = time.monotonic()
                print(progress.line(), flush=True)
            ended = len(seen) == len(jobs.jobs)  # not: none is alive. One may have ended unseen
            if ended and not interrupted:
                return "finished", ""
            if stop():  # before what workers say who heard the same Ctrl-C
                print(
                    ("\n" if live else "") + "stopping: workers save at their next step", flush=True
                )
                return "stopped", f"by {stop.signal}"
            if ended:
                return "interrupted", interrupted
            time.sleep(max(POLL_SECONDS, 10 * looked))  # a large store is not polled all day
    finally:
        jobs.stop()
        if live:
            print(flush=True)
