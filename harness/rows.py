"""Rows: one flat table with a row for each trial. The analysis reads nothing else.

A row has the trial's axes, the counts and scores of its last stage, and the cost of its whole path
of stages. Values that are not known yet are None. `docs/analysis.md` describes the columns.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from harness.arguments import Option
from harness.augment.spaces import find_space
from harness.cluster import read_settlement, read_states, value_of
from harness.data.catalog import info_of
from harness.files import Damaged
from harness.run_schema import RunConfig
from harness.schema import StageConfig
from harness.states import StageState, trial_state
from harness.store import provenance
from harness.store.evaluations import FOLDER, read_evaluation
from harness.store.identity import digest
from harness.store.latency import MANY, SINGLE, read_latencies
from harness.store.records import Number, Record, check, check_seal, read_json
from harness.store.store import COUNTS, SCORES, Store, gpu_seconds
from harness.sweep import cost
from harness.sweep.axes import LONG
from harness.sweep.grid import Trial
from harness.sweep.plan import Plan, without_trunk
from harness.sweep.targets import SCORES as TARGET_SCORES
from harness.sweep.targets import find_target

OLD_DIFFICULTY_KEYS = (
    "teacher", "dataset", "images", "draws", "split_hash", "policy", "clean", "ops", "policies",
    "correlations",
)  # fmt: skip
"""Keys of a `difficulty.json` that was written before it had a digest."""


class _Policy(Record):
    loss: Number


class _Difficulty(Record):
    """What is read of a sweep's `difficulty.json`."""

    dataset: str
    policies: dict[str, _Policy]


def rows_of_grid(
    args: list[str],
    options: Mapping[str, Option] | None = None,
    keys: Collection[str] = (),
    needs_classes: bool = False,
) -> list[dict[str, Any]]:
    """Return the rows of the grid and the store that the arguments of a command name.

    `options` are those that the command has read itself; misspelt words are compared with them.
    `keys` are as in `rows`. With `needs_classes`, the scores of classes are computed for results
    that lack them, if the data set is found; a note says why not.
    """
    from harness.config import load
    from harness.sweep.plan import make_plan

    optional = {name: replace(option, required=False) for name, option in (options or {}).items()}
    launch = load(args, optional)
    plan = make_plan(launch.grid)
    store = Store(launch.store)
    states, _ = read_states(store, plan.stages, must_answer=False)
    settlement = read_settlement(launch, plan, states)
    ruled_out = settlement.ruled_out if settlement else frozenset[str]()
    table = rows(launch.grid.name, plan, store, states, keys, ruled_out)
    if needs_classes:
        _add_class_scores(table, plan, store, states, launch.run)
    return table


def _add_class_scores(
    table: Sequence[dict[str, Any]],
    plan: Plan,
    store: Store,
    states: Mapping[str, StageState],
    run: RunConfig,
) -> None:
    """Add the worst class and the spread over classes to the rows of results that lack them."""
    from harness.data.classes import class_counts

    problems = []
    for row in table:
        result = states[row["stage"]].result
        if row["state"] != "done" or row["val_worst_class"] is not None or result is None:
            continue
        config = plan.stages[row["stage"]].dataset
        counts = class_counts(store, row["stage"], result, config, run.data_root, run.loader)
        if isinstance(counts, str):
            problems.append(counts)
            continue
        for side, of_side in counts.items():
            row |= {f"{side}_worst_class": of_side.worst, f"{side}_class_spread": of_side.spread}
    if problems:
        print(
            f"warning: the accuracy per class of {len(problems)} results is not known: "
            f"{problems[0]}",
            file=sys.stderr,
        )


def rows(
    grid: str,
    plan: Plan,
    store: Store,
    states: Mapping[str, StageState],
    keys: Collection[str] = (),
    ruled_out: Collection[str] = (),
) -> list[dict[str, Any]]:
    """Return a row for each trial, in the grid's order.

    `ruled_out` are the ids of the trials that the rule `settle` leaves out.

    The values of `keys` of the config are added where no column has them. The column `epochs` does
    not: it is the sum over the trial's path, not `recipe.epochs`.
    """
    difficulties = _difficulties(store, grid)
    measured = cost.read_measurements(store.root, plan)
    latencies = _latencies(store, {path[-1] for path in plan.paths.values()})
    table, records = [], []
    for trial in plan.trials:
        path = without_trunk(plan, plan.paths[trial.id])
        stages = [plan.stages[stage] for stage in path]
        planned = {
            "epochs": sum(stage.recipe.epochs for stage in stages),
            "estimated_seconds": _estimate(stages, measured),
        }
        state = trial_state(path, states, trial.id in ruled_out)
        row, record = _row(grid, trial, state, path, planned, store, states)
        if difficulties is not None:
            dataset, losses = difficulties
            # A teacher that selects images changes what was measured for the policy.
            applies = trial.config.dataset.name == dataset and not trial.config.teacher.selects
            row["difficulty"] = losses.get(stages[-1].augment.policy) if applies else None
        if latencies:
            row |= latencies.get(path[-1], dict.fromkeys(next(iter(latencies.values()))))
        for key in keys:
            if key == "recipe.epochs" or LONG.get(key, key) not in row:
                row[key] = value_of(trial, key)
        table.append(row)
        records.append(record)
    name_differing_files(table, records)
    return table


def _estimate(
    stages: Sequence[StageConfig], measured: Mapping[cost.Size, cost.Measurement]
) -> float | None:
    """Return the device-seconds of a path as measured by pilots; None if a size has no pilot."""
    seconds = 0.0
    for stage in stages:
        measurement = measured.get(cost.size_key(stage))
        if measurement is None:
            return None
        seconds += measurement.seconds_per_epoch * stage.recipe.epochs
    return seconds


def _difficulties(store: Store, grid: str) -> tuple[str, dict[str, float]] | None:
    """Return the data set and a teacher's loss for each policy; None if they were not measured."""
    path = store.sweep_folder(grid) / "difficulty.json"
    try:
        content = read_json(path)
        check_seal(path, content, OLD_DIFFICULTY_KEYS)
        difficulty = check(path, content, _Difficulty)
    except FileNotFoundError:
        return None
    except Damaged as error:
        print(
            f"warning: {error}; so the rows have no column `difficulty`: run harness.difficulty "
            "again, or delete the file",
            file=sys.stderr,
        )
        return None
    return difficulty.dataset, {name: entry.loss for name, entry in difficulty.policies.items()}


def _latencies(store: Store, stages: Collection[str]) -> dict[str, dict[str, Any]]:
    """Return the columns of the latency of each stage that was measured, all on one device.

    Of several devices it is the one that was measured last, so that no table mixes them.
    """
    records = [record for stage in sorted(stages) for record in read_latencies(store, stage)]
    if not records:
        return {}
    newest = max(records, key=lambda record: record["measured_at"])
    subject = ("device", "runtime", "threads")
    return {
        record["stage"]: {
            "latency_ms": (single := record["batches"][str(SINGLE)])["median_ms"],
            "latency_spread_ms": single["high_ms"] - single["low_ms"],
            "throughput": 1000 * MANY / record["batches"][str(MANY)]["median_ms"],
            "latency_device": record["device"],
        }
        for record in records
        if all(record[name] == newest[name] for name in subject)
    }


@functools.cache
def _is_calibrated(policy: str) -> bool:
    """Return whether equal magnitudes mean equal difficulty in the policy's space."""
    return find_space(policy.partition("(")[0].strip()).source.startswith("calibrated")


def _row(
    grid: str,
    trial: Trial,
    state: StageState,
    path: Sequence[str],
    planned: Mapping[str, Any],
    store: Store,
    states: Mapping[str, StageState],
) -> tuple[dict[str, Any], Mapping[str, Any]]:
    """Return the row of a trial, and the last record of its last stage."""
    config = trial.config
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
        "batch_size": config.recipe.batch_size,
        "lr": config.recipe.optimizer.lr,
        "train_size": config.dataset.train_size,
        **{name: value_of(trial, name) for name in trial.cell},
        "precision": config.recipe.precision,
        "stage": path[-1],
    }
    results = [states[stage].result for stage in path]
    last = results[-1] or {}
    counts = last.get("counts") or {}
    for name in COUNTS:
        row[name] = counts.get(name)
    row["sparsity_achieved"] = last.get("sparsity")
    for split in ("val", "test"):
        for score in SCORES:
            row[f"{split}_{score}"] = (last.get(split) or {}).get(score)
    row |= _evaluations(store, path[-1], state.name == "done")
    complete = [result for result in results if result is not None]
    is_complete = len(complete) == len(path)
    row["epochs"] = planned["epochs"]
    for name in ("examples", "train_macs"):
        row[name] = sum(result.get(name) or 0 for result in complete) if is_complete else None
    row["test_images"] = config.dataset.test_size or info_of(config.dataset).test_size
    row["gpu_seconds"] = sum(gpu_seconds(result) for result in complete) if is_complete else None
    row["estimated_seconds"] = planned["estimated_seconds"]
    records = [provenance.records(store.folder(stage)) if is_complete else [] for stage in path]
    last_record = records[-1][-1] if records[-1] else {}
    if is_complete:
        records += [provenance.records(store.folder(s)) for s in _continued(store, complete[0])]
    for column in provenance.RECORDED:
        row[column] = provenance.recorded(last_record, column)
    row["flags"] = ";".join(_flags(records))
    return row, last_record


def _evaluations(store: Store, stage: str, is_done: bool) -> dict[str, float | None]:
    """Return the accuracies of a stage on each target; None where it was not evaluated."""
    scores: dict[str, float | None] = {}
    has_any = is_done and (store.folder(stage) / FOLDER).is_dir()
    for name, score in TARGET_SCORES.items():
        record = None
        if has_any:  # a target's id needs SciPy, which most sweeps do not
            try:
                record = read_evaluation(store, stage, find_target(name).id)
            except Damaged as error:
                print(f"warning: {error}: run harness.evaluate again", file=sys.stderr)
        for side in ("val", "test"):
            scores[f"{side}_{score}"] = None if record is None else record[side]["top1"]
    return scores


def _continued(store: Store, result: Mapping[str, Any]) -> list[str]:
    """Return the trunk stages that a dense stage and its predecessors continued, the last first."""
    stages: list[str] = []
    while (continued := result.get("continued")) and continued["stage"] not in stages:
        stages.append(continued["stage"])
        try:
            result = store.result(stages[-1])
        except (FileNotFoundError, Damaged):  # it was set aside since
            break
    return stages


def _flags(records: Sequence[Sequence[Mapping[str, Any]]]) -> list[str]:
    """Return `mixed_<column>` for each column in which the records of a path differ."""
    runs = [record for stage in records for record in stage]
    values = {column: {str(provenance.recorded(r, column)) for r in runs}
              for column in provenance.RECORDED}  # fmt: skip
    values["code"] |= provenance.differing_files(runs)
    return [f"mixed_{column}" for column, different in values.items() if len(different) > 1]


def name_differing_files(
    table: Sequence[dict[str, Any]], records: Sequence[Mapping[str, Any]]
) -> None:
    """Add the column `code_files`: the source files of a row that other rows have otherwise.

    The digest `code` covers what every stage uses. It is extended by a digest of a model family,
    method, form or op that differs between rows, but not by one that other rows just do not use.
    """
    differing = provenance.differing_files(records)
    for row, record in zip(table, records, strict=True):
        files = provenance.source_files(record)
        changed = sorted(differing & files.keys())
        row["code_files"] = ";".join(changed) or None
        if optional := {file: files[file] for file in changed if provenance.is_optional(file)}:
            row["code"] = f"{row['code']}+{digest(optional)[:6]}"
