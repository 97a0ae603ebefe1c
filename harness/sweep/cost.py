"""What is still to be spent, from what stages of the same size took."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from harness.schema import StageConfig
from harness.sweep.plan import Plan

if TYPE_CHECKING:
    from harness.cluster.state import StageState


def size_key(config: StageConfig) -> tuple[object, ...]:
    """Stages with equal keys take equally long per epoch: same data, model, batch and precision."""
    return config.dataset, config.model, config.recipe.batch_size, config.recipe.precision


def seconds_per_epoch(
    plan: Plan, states: Mapping[str, StageState]
) -> dict[tuple[object, ...], float]:
    """Mean device-seconds per epoch of the finished stages of each size."""
    sums: dict[tuple[object, ...], tuple[float, int]] = {}
    for stage, config in plan.stages.items():
        result = states[stage].result
        if result and states[stage].name == "done":
            seconds, epochs = sums.get(size_key(config), (0.0, 0))
            spent = result["timing"]["gpu_seconds"]
            sums[size_key(config)] = (seconds + spent, epochs + result["epochs"])
    return {key: seconds / epochs for key, (seconds, epochs) in sums.items() if epochs}


def sentence(
    plan: Plan, states: Mapping[str, StageState], left: Sequence[str], workers: int
) -> str:
    """The estimate in words; sizes that were never measured are said to be unknown."""
    if not left:
        return "nothing left to spend"
    known = seconds_per_epoch(plan, states)
    costs = [
        known[size_key(plan.stages[s])] * plan.stages[s].recipe.epochs
        for s in left
        if size_key(plan.stages[s]) in known
    ]
    if not costs:
        return "cost unknown until stages of these sizes were measured"
    text = f"about {sum(costs) / 3600:.2f} device-hours still to be spent"
    if len(costs) < len(left):
        return f"{text} on {len(costs)} stages; {len(left) - len(costs)} of sizes never measured"
    return f"{text}, {sum(costs) / 3600 / workers:.2f} hours with {workers} worker(s)"
