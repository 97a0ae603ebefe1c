"""A job's loop over its gangs: claim one, train it, write the results, until nothing is left.

Every rank runs it. Only rank 0 reads and writes the store; it decides and tells the others.
"""

from __future__ import annotations

import contextlib
import math
import time
from typing import Any

from harness.cluster import failure
from harness.cluster.gang_queue import GangQueue
from harness.cluster.job_registry import reason_to_give_up
from harness.cluster.recording import record_failure, record_stop, write_result
from harness.cluster.submission import JobContext
from harness.files import CannotWrite, Damaged, append_line
from harness.store.claims import STALE_SECONDS, Claim, ClaimLost
from harness.train import Member, train_gang

POLL_SECONDS = 0.5
IDLE_SECONDS = STALE_SECONDS + 30.0
"""How long a SLURM job waits for stages that another one trains: idle nodes are expensive."""


class Worker:
    """One rank of a job."""

    def __init__(self, context: JobContext):
        self.context = context
        self.store = context.store
        self.world = context.world
        self.queue = GangQueue(context)
        self.failed: list[dict[str, Any]] = []  # records of final failures since a success
        self.should_restart = False  # whether a job that ends with an exception has more to train

    def run(self) -> tuple[str, str]:
        """Train until nothing is left that this worker could do; returns how it ended, and why.

        "finished", "stopped" (by a signal), "gave up" (the same failure again and again) or
        "storage" (the store cannot be written).
        """
        try:
            return self._run()
        except CannotWrite as error:
            return "storage", str(error)

    def _run(self) -> tuple[str, str]:
        # workers of this machine wait as long as others train
        patience = IDLE_SECONDS if self.context.submission.launcher is None else math.inf
        active_at = time.monotonic()
        while True:
            claims: dict[str, Claim] = {}
            is_waiting, reason = False, ""
            if self.world.rank == 0 and not self.context.stop():
                reason = self._reason_to_give_up()
                if not reason:
                    claims, is_waiting = self.queue.claim_next()
                    is_waiting = is_waiting and time.monotonic() - active_at < patience
            decision = (self.context.stop(), reason, is_waiting, list(claims))
            is_stopping, reason, is_waiting, gang = self.world.broadcast(decision)
            if is_stopping:
                _release(claims)
                return "stopped", f"by {self.context.stop.signal or 'another rank'}"
            if reason:
                return "gave up", reason
            if gang:
                self._train(gang, claims)
                active_at = time.monotonic()
            elif is_waiting:
                time.sleep(POLL_SECONDS)
            else:
                return "finished", ""

    def _reason_to_give_up(self) -> str:
        """Return the failure that repeats, in this job or in the whole submission, or ''."""
        if (reason := reason_to_give_up(self.context.folder)) is not None:
            return reason
        last = self.failed[-failure.BREAKER :]
        if len(last) == failure.BREAKER and len({failure.signature(r) for r in last}) == 1:
            return f"{failure.BREAKER} stages in a row failed alike: {last[-1]['message']}"
        return ""

    def _train(self, gang: list[str], claims: dict[str, Claim]) -> None:
        """Train the stages of a gang that rank 0 has claimed, and write what came of it."""
        failures = [record for stage in gang for record in self.store.failures(stage)]
        run = self.context.submission.run
        micro_batch_size = failure.micro_batch_size(failures, run.micro_batch_size)
        run = run.model_copy(update={"micro_batch_size": micro_batch_size})

        def heartbeat() -> None:
            for claim in claims.values():
                claim.heartbeat()

        try:
            if self.world.rank == 0:
                self._record_attempt(gang)
            members = [self._member(stage) for stage in gang]
            outcomes = train_gang(members, run, self.world, self.context.stop, heartbeat)
            for outcome in outcomes if self.world.rank == 0 else []:
                if outcome.result is not None:
                    write_result(self.context, outcome, claims[outcome.stage_id])
                    self.failed.clear()
                elif self.context.in_slurm and self.context.stop.signal is not None:
                    record_stop(self.context, outcome.stage_id)
        except ClaimLost as lost:
            print(f"note: {lost}; left to its new owner")
        except CannotWrite:  # is not about the stage: the next one would fail, too
            raise
        except Exception as error:  # is classified and recorded; status shows it
            is_retried = self._record_failure(gang, error, micro_batch_size)
            if self.world.size > 1:  # the other ranks wait in a collective until this one exits
                with contextlib.suppress(CannotWrite, OSError):
                    self.should_restart = is_retried or self.queue.has_work()
                raise
        finally:
            _release(claims)

    def _record_attempt(self, gang: list[str]) -> None:
        """Append to each stage's `attempts.jsonl` that this job begins to train it."""
        context = self.context
        attempt = {"job": context.job, "attempt": context.attempt, "log": context.log}
        attempt |= {"time": time.time()} | ({"gang": gang} if len(gang) > 1 else {})
        for stage in gang:
            append_line(self.store.folder(stage) / "attempts.jsonl", attempt)
            print(f"begin {stage}", flush=True)

    def _member(self, stage: str) -> Member:
        """Return what training needs of a stage."""
        config = self.context.submission.stages[stage]
        return Member(
            stage_id=stage,
            config=config,
            folder=self.store.folder(stage),
            origin_folder=self.store.folder(config.origin) if config.origin else None,
            targets=self.context.submission.targets.get(stage, ()),
        )

    def _record_failure(
        self, gang: list[str], error: Exception, micro_batch_size: int | None
    ) -> bool:
        """Record why a gang failed; returns whether any of its stages is tried again.

        Damaged weights of the stage that it starts from are not a failure of the gang: that stage
        is trained again.
        """
        origin = self.context.submission.stages[gang[0]].origin if len(gang) == 1 else None
        if isinstance(error, Damaged) and origin and str(self.store.folder(origin)) in str(error):
            if self.world.rank == 0:
                self.queue.train_again(origin, str(error))
            return True
        is_retried = record_failure(self.context, gang, error, micro_batch_size)
        if not is_retried:
            self.failed.append(failure.describe(error))
        return is_retried


def _release(claims: dict[str, Claim]) -> None:
    for claim in claims.values():
        claim.release()
