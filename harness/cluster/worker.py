"""What a job runs: claim stages one after the other, train them, write their results.

submitit calls `Work` with the path of a submission and the number of a part, so its pickle holds no
state: whatever happens to the job, the store says what is left to do. Every rank of a job runs it;
rank 0 decides and tells the others.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from submitit.helpers import Checkpointable

from harness.cluster import failure, rendezvous, slurm
from harness.cluster.breaker import gave_up, trip_others
from harness.cluster.leave import Leave
from harness.cluster.stop import StopFlag
from harness.cluster.submission import Submission
from harness.data import node
from harness.errors import UserError
from harness.files import CannotWrite, Damaged, append_line, atomic_write
from harness.plugins import set_plugin_files
from harness.store.claims import STALE_SECONDS, Claim, ClaimLost, try_claim
from harness.store.store import Store

if TYPE_CHECKING:
    from harness.train.loop import Member, Outcome

POLL_SECONDS = 0.5
IDLE_SECONDS = STALE_SECONDS + 30.0  # of a job that waits for another's stage: idle nodes are dear
STOPPED = 85
"""Reserved exit code of a job that was stopped and has more to do."""
STORAGE_TRIES = 50
"""Requeues, and successors, after which a job gives a store up that it cannot write to."""
Ended = tuple[str, str]


class Work(Checkpointable):
    """Train what a part of a submission still lacks.

    Returns how it ended ("finished", "gave up", "storage", and here on one machine "stopped") and a
    sentence. Checkpointable, so that a signal which comes before `StopFlag` listens makes submitit
    put the job back as it was.
    """

    def __call__(self, path: str, part: int = 0) -> Ended:
        """The whole job; leaves with exit code `STOPPED` when SLURM's job has more to do."""
        leave, stop = Leave().install(), StopFlag().install()
        submission = Submission.read(Path(path))
        if submission.plugins:
            set_plugin_files(submission.plugins)
        if submission.launcher is not None:
            stop.watch(*submission.launcher)
            node.share(submission.cluster.workers)
        from harness.train.distributed import connected
        from harness.train.loop import train_gang  # noqa: F401  # all that training needs

        leave.keep_imports()

        with contextlib.ExitStack() as stack:
            try:
                why = rendezvous.export(Path(path).parent, gave_up(Path(path).parent))
                if why is not None:
                    leave.code = 0
                    return "gave up", why
                world = stack.enter_context(connected(submission.run))
            except Exception as error:
                if slurm.this_job() is None and isinstance(error, UserError):
                    return "gave up", str(error)
                _no_start(submission, part, error, Path(path).parent)
                raise
            worker = Worker(submission, part, world, stop, Path(path).parent)
            ended = worker.run_job(part)
        leave.code = STOPPED if ended[0] == "stopped" and worker.slurm else 0
        if leave.code:
            raise SystemExit(STOPPED)
        print(f"the job {ended[0]} {ended[1]}", flush=True)
        return ended


def _no_start(submission: Submission, part: int, error: Exception, folder: Path) -> None:
    """A job that could not begin, with a GPU that does not answer or ranks that do not meet."""
    if slurm.this_job() is None or os.environ.get("SLURM_PROCID", "0") != "0":
        return
    store = Store(submission.store)
    stages = [stage for gang in submission.parts[part] for stage in gang]
    stage = next((stage for stage in stages if not store.is_done(stage)), None)
    if stage is not None:
        store.prepare(stage, submission.stages[stage])
        record = failure.describe(error, job=slurm.this_job(), attempt=slurm.restarts(), step=0)
        store.record_failure(stage, {**record, "class": "start"})
        trip_others(submission, store, folder, record)


def _continue(submission: Submission, part: int, job: str, folder: Path) -> None:
    """Requeue exactly this job, or submit its successor where requeueing is not possible."""
    if submission.cluster.slurm.requeue and slurm.requeue(job):
        return
    from harness.cluster.slurm_jobs import Full, resubmit

    attempts = submission.attempts + slurm.restarts()
    try:
        if slurm.is_running(job):
            # of ranks that fail side by side, one
            (folder / f"successor-{job}-{attempts}").touch(exist_ok=False)
            print(f"goes on as job {resubmit(submission, part, attempts)}", flush=True)
    except FileExistsError:
        return
    except (UserError, Full, OSError, RuntimeError, slurm.SlurmDown) as error:
        print(f"note: no successor for all of it ({error}); launch again", flush=True)


class Worker:
    """One job's loop over gangs. Only rank 0 reads and writes the store."""

    def __init__(self, submission: Submission, part: int, world: Any, stop: StopFlag, folder: Path):
        self.submission = submission
        self.world = world
        self.stop = stop
        self.folder = folder
        self.store = Store(submission.store)
        self.slurm = slurm.this_job() is not None
        self.job = (
            slurm.this_job() or f"local-{os.environ.get('SUBMITIT_LOCAL_JOB_ID', os.getpid())}"
        )
        self.attempt = slurm.restarts()
        self.log = _log_path()
        self.gangs = [list(gang) for gang in submission.parts[part]]
        self.blocked: set[str] = set()  # failed or diverged, and what descends from these
        self.alike: list[str] = []  # signatures of failures, until a stage succeeds
        self.again = False  # whether the job should start afresh after the exception it ends with

    def run_job(self, part: int) -> Ended:
        """`run`, and what follows for the job itself."""
        try:
            ended = self.run()
        except CannotWrite as error:
            ended = "storage", str(error)
        except Exception:
            if self.again and self.slurm:  # the others hang: only a fresh start helps
                _continue(self.submission, part, self.job, self.folder)
            raise
        tries = self.submission.attempts + self.attempt
        full = ended[0] == "storage" and tries < STORAGE_TRIES
        if self.slurm and self.world.rank == 0 and (ended[0] == "stopped" or full):
            _continue(self.submission, part, self.job, self.folder)
        if ended[0] != "storage":  # which rank 0 alone meets. A rank that leaves with an exit code
            self.world.any(False)  # has SLURM kill the rest, and rank 0 holds what connects them
        return ended

    def _more(self) -> bool:
        """Whether something is left of this job besides what has just failed for good."""
        with contextlib.suppress(CannotWrite, OSError):
            return any(not self._settled(stage) for gang in self.gangs for stage in gang)
        return False

    def run(self) -> Ended:
        """Until nothing is left that this worker could do, or it is told to stop."""
        busy = time.monotonic()
        while True:
            claims: dict[str, Claim] = {}
            waiting, tripped = False, ""
            if self.world.rank == 0 and not self.stop():
                tripped = self._tripped()
                if not tripped:
                    claims, waiting = self._claim_next()
                    waiting = waiting and time.monotonic() - busy < self._patience()
            found = (self.stop(), tripped, waiting, list(claims))
            stopping, tripped, waiting, gang = self.world.broadcast(found)
            if stopping:
                self._release(claims)
                return "stopped", f"by {self.stop.signal or 'another rank'}"
            if tripped:
                return "gave up", tripped
            if gang:
                self._train(gang, claims)
                busy = time.monotonic()
            elif waiting:
                time.sleep(POLL_SECONDS)
            else:
                return "finished", ""

    def _patience(self) -> float:
        """Seconds to wait for what other workers train."""
        return IDLE_SECONDS if self.submission.launcher is None else math.inf

    def _tripped(self) -> str:
        """Why to give up: the same failure again and again, here or in the whole submission."""
        if (why := gave_up(self.folder)) is not None:
            return why
        last = self.alike[-failure.BREAKER :]
        if len(last) == failure.BREAKER and len(set(last)) == 1:
            return f"{failure.BREAKER} stages in a row failed: {last[0]}"
        return ""

    def _claim_next(self) -> tuple[dict[str, Claim], bool]:
        """Claims on the first gang of which something can be trained now, and whether to wait."""
        waiting = False
        for gang in list(self.gangs):
            left = [stage for stage in gang if not self._settled(stage)]
            if not left:
                self.gangs.remove(gang)
                continue
            if len(left) > 1 and any(failure.alone(self.store.failures(s)) for s in left):
                at = self.gangs.index(gang)
                self.gangs[at : at + 1] = [[stage] for stage in left]
                return self._claim_next()
            claims: dict[str, Claim] = {}
            for stage in left:
                claim = self._claim(stage) if self._parent_ready(stage) else None
                if claim is not None:
                    claims[stage] = claim
            if claims:
                return claims, False
            waiting = True
        return {}, waiting

    def _settled(self, stage: str) -> bool:
        """Done, or not to be done: failed, diverged parent."""
        parent = self.submission.stages[stage].parent
        if self.store.is_done(stage) or stage in self.blocked:
            return True
        if failure.blocks(self.store.failures(stage)) or parent in self.blocked:
            self.blocked.add(stage)
            return True
        return False

    def _parent_ready(self, stage: str) -> bool:
        parent = self.submission.stages[stage].parent
        if parent is None:
            return True
        try:
            if self.store.result(parent)["status"] == "diverged":
                self.blocked.add(stage)
                return False
        except FileNotFoundError:
            if not any(parent in gang for gang in self.gangs):  # it was set aside since
                self.gangs.insert(0, [parent])
            return False
        except Damaged as error:
            self._again(parent, str(error))
            return False
        return True

    def _claim(self, stage: str) -> Claim | None:
        folder = self.store.prepare(stage, self.submission.stages[stage])
        claim = try_claim(folder, self.job, self.attempt, self.log)
        if claim is not None and self.store.is_done(stage):  # finished a moment ago by another
            claim.release()
            return None
        if claim is not None and claim.previous is not None and self.slurm:
            failure.record_lost(self.store, stage, claim.previous, self.job)
            if failure.blocks(self.store.failures(stage)):
                claim.release()
                return None
        return claim

    def _release(self, claims: dict[str, Claim]) -> None:
        for claim in claims.values():
            claim.release()

    def _again(self, stage: str, why: str) -> None:
        """A damaged stage that others start from: set it aside and put it first in line."""
        kind = "damaged" if self.store.has_weights(stage) else "replaced"
        self.store.set_aside(stage, why, kind)
        self.gangs.insert(0, [stage])

    def _train(self, gang: list[str], claims: dict[str, Claim]) -> None:
        from harness.train.loop import Member, train_gang

        past = [record for stage in gang for record in self.store.failures(stage)]
        smaller = failure.micro_batch_size(past, self.submission.run.micro_batch_size)
        run = self.submission.run.model_copy(update={"micro_batch_size": smaller})

        def member(stage: str) -> Member:
            parent = self.submission.stages[stage].parent
            return Member(
                stage_id=stage,
                config=self.submission.stages[stage],
                folder=self.store.folder(stage),
                parent_folder=self.store.folder(parent) if parent else None,
            )

        def heartbeat() -> None:
            for claim in claims.values():
                claim.heartbeat()

        begun = {"job": self.job, "attempt": self.attempt, "log": self.log, "time": time.time()}
        begun |= {"gang": gang} if len(gang) > 1 else {}
        try:
            for stage in gang if self.world.rank == 0 else []:
                append_line(self.store.folder(stage) / "attempts.jsonl", begun)
                print(f"begin {stage}", flush=True)
            members = [member(stage) for stage in gang]
            outcomes = train_gang(members, run, self.world, self.stop, heartbeat)
            if self.world.rank == 0:
                for outcome in outcomes:
                    self._write(outcome, claims[outcome.stage_id])
        except ClaimLost as lost:
            print(f"note: {lost}; left to its new owner")
        except CannotWrite:  # says nothing about the stage, and would meet the next one too
            raise
        except Exception as error:  # classified, recorded, shown by status
            self._failed(gang, error, smaller)
            if self.world.size > 1:  # the others stand in a collective: only an exit frees them
                self.again = self.again or self._more()
                raise
        finally:
            self._release(claims)

    def _write(self, outcome: Outcome, claim: Claim) -> None:
        if outcome.status == "stopped" or outcome.result is None:
            if self.slurm and self.stop.signal is not None:
                self._note_stop(outcome.stage_id)
            return
        from harness.train import checkpoint
        from harness.train.evaluate import packed

        folder = self.store.folder(outcome.stage_id)
        if outcome.correct is not None:
            atomic_write(folder / "correct.npz", packed(outcome.correct))
        self.store.finish(outcome.stage_id, claim, {"status": outcome.status, **outcome.result})
        checkpoint.drop_steps(folder)  # not before: a full disk would cost the whole training
        parents = {config.parent for config in self.submission.stages.values()}
        if self.submission.run.keep_weights == "needed" and outcome.stage_id not in parents:
            (folder / "checkpoint" / "final.pt").unlink(missing_ok=True)
        self.alike.clear()
        print(f"finished {outcome.stage_id} {outcome.status}", flush=True)

    def _note_stop(self, stage: str) -> None:
        """Count a preemption, or the end of the time limit."""
        limit = slurm.seconds_left()
        margin = self.submission.cluster.slurm.signal_seconds + 60
        kind = "time_limit" if limit is not None and limit < margin else "preempted"
        record = {
            "class": kind,
            "message": f"job {self.job} was stopped by {self.stop.signal}",
            "job": self.job,
            "attempt": self.attempt,
            "step": self.store.newest_step(stage),
        }
        with contextlib.suppress(CannotWrite):  # it is only a count
            self.store.record_failure(stage, record)

    def _failed(self, gang: list[str], error: Exception, micro_batch_size: int | None) -> None:
        """Record what went wrong; any rank may: rank 0 may never hear of it."""
        if isinstance(error, Damaged) and len(gang) == 1:
            parent = self.submission.stages[gang[0]].parent
            if parent is not None and str(self.store.folder(parent)) in str(error):
                if self.world.rank == 0:
                    self._again(parent, str(error))
                return
        where = {"job": self.job, "attempt": self.attempt, "rank": self.world.rank}
        if len(gang) > 1 and failure.classify(error) != "transport":  # shows when each is alone
            for stage in gang:
                self.store.record_failure(stage, failure.of_gang(error, **where))
            self.again = True
            return
        if failure.classify(error) == "transport":
            time.sleep(POLL_SECONDS)  # another rank that failed first tells more
            last = self.store.failures(gang[0])[-1:]
            if last and all(last[0].get(key) == where[key] for key in ("job", "attempt")):
                return
        for stage in gang:
            record = failure.describe(error, **where, step=self.store.newest_step(stage))
            if record["class"] == "out_of_memory":
                batch = self.submission.stages[stage].recipe.batch_size // self.world.size
                half = (micro_batch_size or batch) // 2
                record |= {"again": True, "micro_batch_size": half} if half >= 1 else {}
            self.store.record_failure(stage, record)
            if failure.blocks(self.store.failures(stage)):
                self.blocked.add(stage)
                if self.slurm:
                    trip_others(self.submission, self.store, self.folder, record)
        self.again = not self.blocked.issuperset(gang)
        if not self.again:
            self.alike.append(failure.signature(record))
        print(record["traceback"], flush=True)
        pause = failure.pause_seconds(self.store.failures(gang[0]))
        time.sleep(pause if self.again else 0.0)


def _log_path() -> str:
    """The file that this process writes to, by submitit's account; empty outside of a job."""
    from submitit import JobEnvironment

    try:
        return str(JobEnvironment().paths.stdout)
    except (RuntimeError, KeyError):
        return ""
