"""Measures how long 100,000 trials take to expand, to plan and to compare with an empty store.

python benchmarks/plan.py
"""

import tempfile
import time
from pathlib import Path

from harness.cluster.state import stage_states
from harness.config.checks import check_sections, check_trial
from harness.store.store import Store
from harness.sweep.grid import make_grid
from harness.sweep.plan import gangs, make_plan, stages_before_sharing, todo

GRID = {
    "dataset": {"name": "cifar10", "validation_size": 5000},
    "model": {"family": "cifar_resnet", "depth": 20, "width": 1.0},
    "augment": {"policy": "randaug(n=2)"},
    "recipe": {"epochs": 200, "batch_size": 128, "optimizer": {"lr": 0.1}},
    "compress": {"level_share": 0.5},
    "axes": {
        "width": [i / 10 for i in range(1, 21)],
        "sparsity": [0.0, 0.5, 0.75, 0.875, 0.9],
        "magnitude": ["none", *(i / 20 for i in range(1, 20))],
        "seed": list(range(50)),
    },
}


def main() -> None:
    started = time.perf_counter()
    grid = make_grid("large", GRID, check_sections, check_trial)
    expanded = time.perf_counter()
    plan = make_plan(grid)
    planned = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        states = stage_states(store, plan.stages)
        remaining = todo(plan, {s: state.name for s, state in states.items()}, store.has_start)
        groups = gangs(plan, remaining, lambda gang, stage: len(gang) < 4)
    ended = time.perf_counter()
    print(
        f"{len(plan.trials):,} trials, {len(plan.stages):,} stages "
        f"({stages_before_sharing(plan):,} without sharing), {len(remaining):,} to train in "
        f"{len(groups):,} gangs"
    )
    print(
        f"expand {expanded - started:.1f} s, plan {planned - expanded:.1f} s, "
        f"compare {ended - planned:.1f} s, all {ended - started:.1f} s"
    )


if __name__ == "__main__":
    main()
