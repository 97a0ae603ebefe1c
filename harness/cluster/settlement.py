"""Where a sweep with the rule `settle` stands, as the results in its store say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.cluster.selection import trials_to_settle
from harness.config import Launch
from harness.files import Damaged
from harness.states import StageState, trial_state
from harness.store.evaluations import read_evaluation
from harness.store.identity import digest
from harness.store.store import Store
from harness.sweep.plan import Plan
from harness.sweep.settle import Settlement, settle
from harness.sweep.targets import find_target


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
            score = _score(launch, plan, plan.paths[trial.id][-1], state.result)
            if score is not None:
                results[trial.id] = score
    return settle(trials, launch.settle, results)


def _score(launch: Launch, plan: Plan, stage: str, result: Mapping[str, Any]) -> float | None:
    """Return the metric of the rule `settle` on validation; None if it is not known.

    A trial without it has no result yet for the rule.
    """
    assert launch.settle is not None
    metric, store = launch.settle.metric, Store(launch.store)
    if metric == "corrupted":
        try:
            record = read_evaluation(store, stage, find_target("corruptions").id)
        except Damaged:
            return None
        return None if record is None else float(record["val"]["top1"])
    score = result["val"].get(metric)
    if score is None and metric == "worst_class":  # a result of an older version
        from harness.data.classes import class_counts

        run, dataset = launch.run, plan.stages[stage].dataset
        counts = class_counts(store, stage, result, dataset, run.data_root, run.loader)
        return None if isinstance(counts, str) else counts["val"].worst
    return None if score is None else float(score)


def describe_unjudged(launch: Launch, plan: Plan, states: Mapping[str, StageState]) -> list[str]:
    """Return a sentence if finished trials lack the metric of the rule, so that a round stays open.

    That happens if a training was stopped during its evaluation.
    """
    if launch.settle is None or launch.settle.metric == "top1":
        return []
    missing = []
    for trial in trials_to_settle(launch, plan):
        state = trial_state(plan.paths[trial.id], states)
        if state.name == "done" and state.result is not None:
            stage = plan.paths[trial.id][-1]
            if _score(launch, plan, stage, state.result) is None:
                missing.append(stage)
    if not missing:
        return []
    metric = launch.settle.metric
    remedy = {
        "corrupted": f"run `{launch.command('harness.evaluate', 'on=corruptions')}`",
        "worst_class": "set run.data_root to where the data set lies",
    }[metric]
    return [
        f"settle.metric={metric}: {len(missing):,} finished results lack it, such as "
        f"{missing[0]}, and the rounds go on when they have it: {remedy}, and launch again"
    ]


def decision_name(launch: Launch, plan: Plan) -> str:
    """Return the name, in the record of jobs, of the decision on the next round of these trials.

    It stands where other jobs have the ids of their stages.
    """
    assert launch.settle is not None
    trials = [trial.id for trial in trials_to_settle(launch, plan)]
    return "decision-" + digest([launch.settle.model_dump(mode="json"), trials])[:16]
