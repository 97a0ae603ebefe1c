"""Where a sweep with the rule `settle` stands, as the results in its store say."""

from __future__ import annotations

from collections.abc import Mapping

from harness.cluster.selection import trials_to_settle
from harness.config import Launch
from harness.states import StageState, trial_state
from harness.store.identity import digest
from harness.sweep.plan import Plan
from harness.sweep.settle import Settlement, settle


def read_settlement(
    launch: Launch, plan: Plan, states: Mapping[str, StageState]
) -> Settlement | None:
    """Return the present round of the sizes that a launch selects; None for a full grid."""
    trials = trials_to_settle(launch, plan)
    if launch.settle is None or not trials:
        return None
    results: dict[str, float | None] = {}
    for trial in trials:
        state = trial_state(plan.paths[trial.id], states)
        if state.name == "diverged":
            results[trial.id] = None
        elif state.name == "done" and state.result is not None:
            results[trial.id] = state.result["val"]["top1"]
    return settle(trials, launch.settle, results)


def decision_name(launch: Launch, plan: Plan) -> str:
    """Return the name, in the record of jobs, of the decision on the next round of these trials.

    It stands where other jobs have the ids of their stages.
    """
    assert launch.settle is not None
    trials = [trial.id for trial in trials_to_settle(launch, plan)]
    return "decision-" + digest([launch.settle.model_dump(mode="json"), trials])[:16]
