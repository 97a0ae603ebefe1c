"""The gangs that a job still has to train, and how it claims the next one from the store."""

from __future__ import annotations

import dataclasses

from harness.cluster import failure
from harness.cluster.state import stage_state
from harness.cluster.submission import JobContext
from harness.files import Damaged
from harness.states import ENDED, StageState
from harness.store.claims import Claim, try_claim


class GangQueue:
    """Gangs of one job, in order. Every rank has one; only rank 0 claims from it."""

    def __init__(self, context: JobContext):
        self.context = context
        self.store = context.store
        self.stages = context.submission.stages
        self.gangs = [list(gang) for gang in context.submission.parts[context.part]]
        self._ended: dict[str, StageState] = {}  # these are not read again

    def state(self, stage: str) -> StageState:
        """Return the state of a stage of this job, or of one that it descends from."""
        if stage not in self._ended:
            config = self.stages[stage]
            origin = None if config.origin is None else self.state(config.origin)
            state = stage_state(self.store, stage, config, origin)
            if state.name not in ENDED:
                return state
            self._ended[stage] = dataclasses.replace(state, result=None)
        return self._ended[stage]

    def has_work(self) -> bool:
        """Return whether any stage of this job has not ended."""
        return any(self.state(s).name not in ENDED for gang in self.gangs for s in gang)

    def claim_next(self) -> tuple[dict[str, Claim], bool]:
        """Claim the stages of the first gang of which any can be trained now.

        Returns the claims, and whether it is worth waiting where there are none: then another
        worker trains these stages or those that they start from.
        """
        position = 0
        while position < len(self.gangs):
            gang = [s for s in self.gangs[position] if self.state(s).name not in ENDED]
            if not gang:
                del self.gangs[position]
                continue
            if len(gang) > 1 and any(
                failure.must_train_alone(self.store.failures(stage)) for stage in gang
            ):
                self.gangs[position : position + 1] = [[stage] for stage in gang]
                continue
            claims: dict[str, Claim] = {}
            for stage in gang:
                claim = self._claim(stage) if self._is_origin_done(stage) else None
                if claim is not None:
                    claims[stage] = claim
            if claims:
                return claims, False
            position += 1
        return {}, bool(self.gangs)

    def _is_origin_done(self, stage: str) -> bool:
        """Return whether the stage that `stage` starts from is done; a missing one comes first.

        Its state is read again, because another worker may have set its result aside.
        """
        origin = self.stages[stage].origin
        if origin is None:
            return True
        self._ended.pop(origin, None)
        state = self.state(origin)
        if state.name not in ENDED and not any(origin in gang for gang in self.gangs):
            self.gangs.insert(0, [origin])
        return state.name == "done"

    def _claim(self, stage: str) -> Claim | None:
        """Return a claim on a stage that is to be trained now, or None."""
        context = self.context
        folder = self.store.prepare(stage, self.stages[stage])
        claim = try_claim(folder, context.job, context.attempt, context.log)
        if claim is None:
            return None
        self.store.clean(stage)
        try:
            self.store.result(stage)  # another worker has finished it a moment ago
            claim.release()
            return None
        except FileNotFoundError:
            pass
        except Damaged as error:
            self.store.set_aside(stage, str(error))
        if claim.previous is not None and context.in_slurm:
            failure.record_lost(self.store, stage, claim.previous, context.job)
            if failure.blocks(self.store.failures(stage)):
                claim.release()
                return None
        return claim

    def train_again(self, stage: str, why: str) -> None:
        """Set a finished stage aside, whose weights are damaged, and put it first in the queue."""
        kind = "damaged" if self.store.has_weights(stage) else "replaced"
        self.store.set_aside(stage, why, kind)
        self._ended.pop(stage, None)
        self.gangs.insert(0, [stage])
