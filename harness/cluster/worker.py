"""What a job runs: claim stages one after the other, train them, write their results.

submitit calls `work` with the path of a submission and nothing else, so its pickle holds no
state: whatever happens to the job, the store says what is left to do. Every rank of a job runs
`work`; rank 0 decides and tells the others.
"""

from __future__ import annotations

import json
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.cluster import failure, rendezvous, slurm
from harness.cluster.stop import StopFlag
from harness.schema import RunConfig, StageConfig
from harness.store.claims import Claim, ClaimLost, try_claim
from harness.store.files import CannotWrite, Damaged, atomic_write
from harness.store.store import Store

if TYPE_CHECKING:
    from harness.train.loop import Member, Outcome

POLL_SECONDS = 0.5
IDLE_SECONDS = 60.0
STOPPED = 85
"""Reserved exit code of a job that was stopped and has more to do."""


@dataclass(frozen=True)
class Submission:
    """What `launch` writes for its workers: configs, gangs in order, how to run them.

    `parts` has the gangs of each job; local workers all take from part 0.
    """

    store: Path
    run: RunConfig
    stages: dict[str, StageConfig]  # parents before children
    parts: list[list[list[str]]]
    launcher: tuple[int, str] | None  # pid and start time: local workers end with their launcher

    def write(self, path: Path) -> None:
        """Write it as JSON."""
        value = {
            "store": str(self.store),
            "run": self.run.model_dump(mode="json"),
            "stages": {i: config.model_dump(mode="json") for i, config in self.stages.items()},
            "parts": self.parts,
            "launcher": self.launcher,
        }
        atomic_write(path, json.dumps(value).encode())

    @classmethod
    def read(cls, path: Path) -> Submission:
        """Read what `write` wrote."""
        said = json.loads(path.read_bytes())
        return cls(
            store=Path(said["store"]),
            run=RunConfig.model_validate_json(json.dumps(said["run"])),
            stages={
                i: StageConfig.model_validate_json(json.dumps(config))
                for i, config in said["stages"].items()
            },
            parts=said["parts"],
            launcher=tuple(said["launcher"]) if said["launcher"] else None,
        )


def work(path: str, part: int = 0) -> tuple[str, str]:
    """Train what a part of the submission at `path` still lacks.

    Returns how it ended ("finished", "stopped", "gave up", "storage") and a sentence about it.
    """
    stop = StopFlag().install()
    submission = Submission.read(Path(path))
    if submission.launcher is not None:
        stop.watch(*submission.launcher)
    rendezvous.export(Path(path).parent)
    from harness.train.distributed import connected

    with connected(submission.run) as world:
        try:
            ended = Worker(submission, part, world, stop).run()
        except CannotWrite as error:
            ended = "storage", str(error)
        job = slurm.this_job()
        if ended[0] == "stopped" and job is not None and world.rank == 0:
            slurm.requeue(job)
        return ended


class Worker:
    """One job's loop over gangs. Only rank 0 reads and writes the store."""

    def __init__(self, submission: Submission, part: int, world: Any, stop: StopFlag):
        self.submission = submission
        self.world = world
        self.stop = stop
        self.store = Store(submission.store)
        self.job = slurm.this_job() or os.environ.get("SUBMITIT_LOCAL_JOB_ID", str(os.getpid()))
        self.attempt = slurm.restarts()
        self.gangs = [list(gang) for gang in submission.parts[part]]
        self.blocked: set[str] = set()  # failed or diverged, and what descends from these
        self.alike: list[str] = []  # signatures of failures, until a stage succeeds

    def run(self) -> tuple[str, str]:
        """Until nothing is left that this worker could do, or it is told to stop."""
        busy = time.monotonic()
        while True:
            claims: dict[str, Claim] = {}
            waiting = False
            if self.world.rank == 0 and not self.stop():
                claims, waiting = self._claim_next()
            stopping, waiting, gang = self.world.broadcast((self.stop(), waiting, list(claims)))
            if stopping:
                self._release(claims)
                return "stopped", f"by {self.stop.signal or 'another rank'}"
            if gang:
                self._train(gang, claims)
                busy = time.monotonic()
            elif waiting and time.monotonic() - busy < self._patience():
                time.sleep(POLL_SECONDS)
            else:
                return "finished", ""
            if self.world.broadcast(self._tripped()):
                return "gave up", f"{failure.BREAKER} stages in a row failed: {self.alike[-1]}"

    def _patience(self) -> float:
        """Seconds to wait for what other workers train: on a cluster, idle nodes are dear."""
        return IDLE_SECONDS if self.submission.launcher is None else math.inf

    def _tripped(self) -> bool:
        last = self.alike[-failure.BREAKER :]
        return len(last) == failure.BREAKER and len(set(last)) == 1

    def _claim_next(self) -> tuple[dict[str, Claim], bool]:
        """Claims on the first gang of which something can be trained now, and whether to wait."""
        waiting = False
        for gang in list(self.gangs):
            left = [stage for stage in gang if not self._settled(stage)]
            if not left:
                self.gangs.remove(gang)
                continue
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
        claim = try_claim(folder, self.job, self.attempt)
        if claim is not None and self.store.is_done(stage):  # finished a moment ago by another
            claim.release()
            return None
        return claim

    def _release(self, claims: dict[str, Claim]) -> None:
        for claim in claims.values():
            claim.release()

    def _again(self, stage: str, why: str) -> None:
        """A damaged stage that others start from: set it aside and put it first in line."""
        self.store.set_aside(stage, why)
        self.gangs.insert(0, [stage])

    def _train(self, gang: list[str], claims: dict[str, Claim]) -> None:
        from harness.train.loop import Member, train_gang

        run = self.submission.run

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

        try:
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
            if self.world.rank == 0:
                self._failed(gang, error)
            if self.world.size > 1:  # the others stand in a collective: only an exit frees them
                raise
        finally:
            self._release(claims)

    def _write(self, outcome: Outcome, claim: Claim) -> None:
        if outcome.status == "stopped" or outcome.result is None:
            return
        folder = self.store.folder(outcome.stage_id)
        if outcome.correct is not None:
            atomic_write(folder / "correct.npz", _packed(outcome.correct))
        self.store.finish(outcome.stage_id, claim, {"status": outcome.status, **outcome.result})
        parents = {config.parent for config in self.submission.stages.values()}
        if self.submission.run.keep_weights == "needed" and outcome.stage_id not in parents:
            (folder / "checkpoint" / "final.pt").unlink(missing_ok=True)
        self.alike.clear()
        print(f"finished {outcome.stage_id} {outcome.status}", flush=True)

    def _failed(self, gang: list[str], error: Exception) -> None:
        if isinstance(error, Damaged) and len(gang) == 1:
            parent = self.submission.stages[gang[0]].parent
            if parent is not None and str(self.store.folder(parent)) in str(error):
                self._again(parent, str(error))
                return
        if len(gang) > 1:  # which member it was shows when each is tried alone
            self.gangs = [[stage] for stage in gang] + [g for g in self.gangs if g != gang]
            return
        record = failure.describe(error, self.job, self.attempt)
        self.store.record_failure(gang[0], record)
        self.alike.append(f"{record['error']} at {record['where']}: {record['message']}")
        if failure.blocks([record]):
            self.blocked.add(gang[0])
        print(record["traceback"])


def _packed(correct: dict[str, Any]) -> bytes:
    """One packed bit per example and split, with the number of examples: a few hundred bytes."""
    import io

    import numpy as np

    arrays: dict[str, Any] = {}
    for split, bits in correct.items():
        arrays[split] = np.packbits(bits)
        arrays[f"{split}_count"] = np.array(len(bits))
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()
