"""Supervise the workers of this machine: show progress, replace dead ones, stop all on Ctrl-C."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence

from harness.cluster.local import LocalWorkers
from harness.cluster.state import stage_states
from harness.cluster.stop_flag import StopFlag
from harness.errors import control
from harness.schema import StageConfig
from harness.states import ENDED, StageState, StateName
from harness.store.store import Store

POLL_SECONDS = 0.5
PRINT_SECONDS = 15.0  # between two progress lines where the output is not a terminal
RESTARTS = 3
"""Workers that may die one after the other without a stage finished in between."""


class Progress:
    """Counts of a launch's trials and stages; a stage that has ended is not read again."""

    def __init__(
        self,
        store: Store,
        stages: Mapping[str, StageConfig],
        paths: Sequence[Sequence[str]],
        states: Mapping[str, StageState] | None = None,
    ):
        """`states`: of stages that this launch does not train, which are taken as they are."""
        self.store = store
        self.stages = stages
        self.paths = paths
        self.states = dict(states or {})
        self.finished_before = self.finished()
        self.started = time.monotonic()

    def update(self) -> None:
        """Read the state of every stage that has not ended."""
        known = {stage: self.states[stage] for stage in self._in(*ENDED)}
        self.states = stage_states(self.store, self.stages, known=known)

    def _in(self, *names: StateName) -> set[str]:
        """Return the stages whose state is one of `names`."""
        return {stage for stage, state in self.states.items() if state.name in names}

    def finished(self) -> set[str]:
        """Return the stages that have a result."""
        return {stage for stage, state in self.states.items() if state.result is not None}

    def seconds_left(self) -> float | None:
        """Return an estimate from the pace of this launch, or None before its first result."""
        epochs = {stage: config.own_epochs for stage, config in self.stages.items()}
        trained = sum(epochs[stage] for stage in self.finished() - self.finished_before)
        remaining = sum(epochs[stage] for stage in set(epochs) - self._in(*ENDED))
        return (time.monotonic() - self.started) * remaining / trained if trained else None

    def line(self) -> str:
        """Return one line: trials done and failed, stages done and running, time left."""
        finished, failed = self.finished(), self._in("failed")
        trials = [path[-1] for path in self.paths]
        seconds = self.seconds_left()
        time_left = "time left unknown" if seconds is None else f"about {duration(seconds)} left"
        return (
            f"trials: {sum(stage in finished for stage in trials)} of {len(trials)} done, "
            f"{sum(stage in failed for stage in trials)} failed; "
            f"stages: {len(finished)} of {len(self.stages)} done, "
            f"{len(self._in('running'))} running; {time_left}"
        )


def duration(seconds: float) -> str:
    """Return seconds as `45 s`, `3 min 20 s` or `5 h 10 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def supervise(
    workers: LocalWorkers, count: int, progress: Progress, stop: StopFlag
) -> tuple[str, str]:
    """Start `count` workers, wait for their end, and return how they ended and why.

    "finished": nothing is left to train. "stopped": this process received a signal. "interrupted":
    workers were stopped by other signals, such as the time limit. "gave up": the same failure
    occurred again and again. "storage": the store cannot be written. "died": workers died
    repeatedly without finishing a stage. Workers that still run at the return are stopped.
    """
    is_terminal = sys.stdout.isatty()
    printed_at = 0.0
    deaths, finished_at_death = 0, -1
    interrupted = ""
    ended_ids: set[str] = set()
    try:
        for number in range(count):
            workers.start(number)
        while True:
            for job in list(workers.jobs):
                if job.job_id in ended_ids or not job.done():
                    continue
                ended_ids.add(job.job_id)
                end, why = workers.outcome(job)
                if end in ("gave up", "storage"):
                    return end, why
                if end == "stopped":
                    interrupted = f"a worker was stopped {why}, as it is at cluster.timeout_min"
                if end == "died":
                    progress.update()
                    finished = len(progress.finished())
                    deaths = deaths + 1 if finished == finished_at_death else 1
                    finished_at_death = finished
                    if deaths > RESTARTS:
                        return end, why
                    workers.start(workers.number_of[job.job_id])
            began = time.monotonic()
            progress.update()
            update_seconds = time.monotonic() - began
            if is_terminal:
                control("\r\x1b[2K")
                print(progress.line(), end="", flush=True)
            elif time.monotonic() - printed_at > PRINT_SECONDS:
                printed_at = time.monotonic()
                print(progress.line(), flush=True)
            # not `count_alive() == 0`: the last worker may have ended since the loop above
            have_ended = len(ended_ids) == len(workers.jobs)
            if have_ended and not interrupted:
                return "finished", ""
            if stop():  # comes before `interrupted`: workers receive the same Ctrl-C
                print(
                    ("\n" if is_terminal else "") + "stopping: workers save at their next step",
                    flush=True,
                )
                return "stopped", f"by {stop.signal}"
            if have_ended:
                return "interrupted", interrupted
            time.sleep(max(POLL_SECONDS, 10 * update_seconds))  # at most a tenth of the time
    finally:
        workers.stop()
        if is_terminal:
            print(flush=True)
