"""Seconds to expand, deduplicate and reconcile 100,000 trials with an empty store, on one core.

python benchmarks/plan.py
"""

import tempfile
import time
from pathlib import Path

from harness.cluster.state import stage_states
from harness.config import check_cell, check_sections
from harness.store.store import Store
from harness.sweep.grid import make_grid
from harness.sweep.plan import gangs, make_plan, stages_before_sharing, todo

SAID = {
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
    begun = time.perf_counter()
    grid = make_grid("large", SAID, check_sections, check_cell)
    expanded = time.perf_counter()
    plan = make_plan(grid)
    shared = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        states = stage_states(store, plan.stages)
        left = todo(plan, {s: state.name for s, state in states.items()}, store.has_weights)
        groups = gangs(plan, left, lambda gang, stage: len(gang) < 4)
    ended = time.perf_counter()
    print(
        f"{len(plan.trials):,} trials, {len(plan.stages):,} stages "
        f"({stages_before_sharing(plan):,} without sharing), {len(left):,} to train in "
        f"{len(groups):,} gangs"
    )
    print(
        f"expand {expanded - begun:.1f} s, share {shared - expanded:.1f} s, "
        f"reconcile {ended - shared:.1f} s, all {ended - begun:.1f} s"
    )


if __name__ == "__main__":
    main()
