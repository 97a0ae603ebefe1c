"""Rows: one flat table, a line per trial, all that the analysis reads.

A row has the trial's axes, the counts and scores of its last stage, and what its whole path of
stages cost. What is not known yet is None. Columns are described in `docs/analysis.md`.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from harness.augment.spaces import find_space
from harness.cluster.job_registry import query_scheduler
from harness.cluster.state import stage_states
from harness.files import Damaged, read_json
from harness.schema import StageConfig
from harness.store import provenance
from harness.store.store import Store
from harness.sweep import cost
from harness.sweep.plan import Plan
from harness.sweep.states import StageState, trial_state
from harness.sweep.trial import Trial

RECORDED = (
    ("code", ("code",)),
    ("engine", ("engine",)),
    ("zero_stage", ("zero_stage",)),
    ("world_size", ("world_size",)),
    ("micro_batch_size", ("micro_batch_size",)),
    ("loader", ("loader",)),
    ("stored", ("stored",)),
    ("split_hash", ("split_hash",)),
    ("memory_format", ("memory_format",)),
    ("device", ("device",)),
    ("threads", ("threads",)),
    ("deterministic", ("deterministic",)),
    ("torch", ("packages", "torch")),
    ("deepspeed", ("packages", "deepspeed")),
)
"""Columns that say what the last stage was made with, and where `provenance.json` has them."""


def rows_of_grid(args: list[str]) -> list[dict[str, Any]]:
    """Rows of `grid=...` and `store=...` as the commands take them."""
    from harness.config import load
    from harness.sweep.plan import make_plan

    launch = load(args)
    plan = make_plan(launch.grid)
    store = Store(launch.store)
    states = stage_states(store, plan.stages, query_scheduler(store.root))
    return rows(launch.grid.name, plan, store, states)


def rows(
    grid: str, plan: Plan, store: Store, states: Mapping[str, StageState]
) -> list[dict[str, Any]]:
    """One row per trial, in the grid's order."""
    told = _difficulties(store, grid)
    measured = cost.read_measurements(store.root, plan)
    found = []
    for trial in plan.trials:
        path = plan.paths[trial.id]
        stages = [plan.stages[stage] for stage in path]
        asked = {
            "epochs": sum(stage.recipe.epochs for stage in stages),
            "estimated_seconds": _estimate(stages, measured),
        }
        row = _row(grid, trial, path, asked, store, states)
        if told is not None:
            dataset, losses = told
            # a teacher that selects makes other images of the policy than were measured
            fits = trial.config.dataset.name == dataset and not trial.config.teacher.selects
            row["difficulty"] = losses.get(stages[-1].augment.policy) if fits else None
        found.append(row)
    return found


def _estimate(
    stages: Sequence[StageConfig], measured: Mapping[cost.Size, cost.Measurement]
) -> float | None:
    """Device-seconds of a path by the pilots of its stages' sizes; None where one is missing."""
    known = [measured.get(cost.size_key(stage)) for stage in stages]
    if None in known:
        return None
    lengths = [stage.recipe.epochs for stage in stages]
    return sum(p.seconds_per_epoch * n for p, n in zip(known, lengths, strict=True) if p)


def _difficulties(store: Store, grid: str) -> tuple[str, dict[str, float]] | None:
    """Data set, and a teacher's loss on each policy, where `harness.difficulty` measured them."""
    path = store.sweep_folder(grid) / "difficulty.json"
    try:
        said = read_json(path)
        losses = {policy: float(line["loss"]) for policy, line in said["policies"].items()}
        return str(said["dataset"]), losses
    except FileNotFoundError:
        return None
    except (Damaged, KeyError, TypeError, ValueError, AttributeError) as error:
        print(
            f"warning: {path} is not what harness.difficulty writes ({error!r}), so the rows have "
            "no column `difficulty`: run that command again, or delete the file",
            file=sys.stderr,
        )
        return None


@functools.cache
def _is_calibrated(policy: str) -> bool:
    """Whether equal magnitude is equal difficulty in the policy's space."""
    return find_space(policy.partition("(")[0].strip()).source.startswith("calibrated")


def _row(
    grid: str,
    trial: Trial,
    path: Sequence[str],
    asked: Mapping[str, Any],
    store: Store,
    states: Mapping[str, StageState],
) -> dict[str, Any]:
    state, config = trial_state(path, states), trial.config
    row: dict[str, Any] = {
        "grid": grid,
        "trial": trial.id,
        "state": state.name,
        "why": state.why or None,
        "dataset": config.dataset.name,
        "family": config.model.family,
        "depth": config.model.depth,
        "width": config.model.width,
        "sparsity": config.compress.sparsity,
        "dense_long": config.compress.dense_long,
        "policy": config.augment.policy,
        "magnitude": config.augment.magnitude,
        "schedule": config.compress.magnitude_schedule,
        "surplus": config.surplus.form,
        "calibrated": _is_calibrated(config.augment.policy),
        "seed": config.seed,
        **trial.cell,
        "precision": config.recipe.precision,
        "stage": path[-1],
    }
    found = [states[stage].result for stage in path]
    last = found[-1] or {}
    counts = last.get("counts") or {}
    for name in ("params_total", "params_nonzero", "params_prunable", "macs_dense", "macs_nonzero"):
        row[name] = counts.get(name)
    row["sparsity_achieved"] = last.get("sparsity")
    for split in ("val", "test"):
        for score in ("top1", "loss"):
            row[f"{split}_{score}"] = (last.get(split) or {}).get(score)
    complete = [result for result in found if result is not None]
    whole = len(complete) == len(path)
    row["epochs"] = asked["epochs"]
    for name in ("examples", "train_macs"):
        row[name] = sum(result.get(name) or 0 for result in complete) if whole else None
    row["gpu_seconds"] = (
        sum(result["timing"]["gpu_seconds"] for result in complete) if whole else None
    )
    row["estimated_seconds"] = asked["estimated_seconds"]
    made = [provenance.records(store.folder(stage)) if whole else [] for stage in path]
    for column, keys in RECORDED:
        row[column] = _dig(made[-1][-1], keys) if made[-1] else None
    row["flags"] = ";".join(_flags(made))
    return row


def _dig(record: Mapping[str, Any], keys: Sequence[str]) -> Any:
    value: Any = record
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _flags(made: Sequence[Sequence[Mapping[str, Any]]]) -> list[str]:
    """`mixed_<column>` where the path's stages, or one stage's runs, differ in it."""
    records = [record for stage in made for record in stage]
    return [
        f"mixed_{column}"
        for column, keys in RECORDED
        if len({str(_dig(record, keys)) for record in records}) > 1
    ]
