"""The outputs of `difficulty`: tables on the screen, CSV files, a heat map, the sweep's record."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scipy.stats import spearmanr

from harness.cluster.state import stage_states
from harness.commands.difficulty_measure import MAGNITUDES, Results, by_op
from harness.config import Launch
from harness.files import atomic_write, make_folder, write_json
from harness.rows import rows
from harness.store.records import sealed
from harness.store.store import Store
from harness.sweep.plan import make_plan
from harness.text_table import format_table
from harness.train.difficulty import MEASURES, Difficulty

FEWEST_POLICIES = 5  # for a rank correlation
SHOWN = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)  # magnitudes on the screen


def write(
    launch: Launch,
    dataset: str,
    policy: str,
    results: Results,
    correlation_rows: Sequence[Mapping[str, Any]],
) -> None:
    """Write the sweep's `difficulty.json`, which `harness.rows` reads, and the files in `out=`."""
    ops = [_record(line, results.clean) for line in results.ops]
    policies = [_record(line, results.clean) for line in results.policies]
    folder = make_folder(Store(launch.store).sweep_folder(launch.grid.name))
    write_json(
        folder / "difficulty.json",
        sealed(
            {
                "teacher": launch.options["teacher"],
                "teacher_normalisation": results.teacher,
                "dataset": dataset,
                "images": results.images,
                "draws": launch.options["draws"],
                "split_hash": results.split_hash,
                "policy": policy,
                "clean": results.clean.means,
                "ops": ops,
                "policies": {record["op"]: record for record in policies},
                "correlations": correlation_rows,
            }
        ),
    )
    if not launch.options["out"]:
        return
    out = make_folder(Path(launch.options["out"]))
    tables = {"ops": ops, "policies": policies, "correlations": correlation_rows}
    for name, records in tables.items():
        if records:  # a sweep without results has no correlations
            _write_csv(out / f"{name}.csv", records)
    _write_heat_map(out / "heatmap.png", results.ops)


def _record(line: Difficulty, clean: Difficulty) -> dict[str, Any]:
    halves = {f"{measure}_half": half for measure, half in line.half_widths.items()}
    values = {"op": line.op, "magnitude": line.magnitude, **line.means}
    return {**values, "affinity": _affinity(line, clean), **halves}


def _affinity(line: Difficulty, clean: Difficulty) -> float:
    """Return the accuracy as a share of that on clean images (Gontijo-Lopes et al. 2021)."""
    return line.means["accuracy"] / max(1e-9, clean.means["accuracy"])


def _write_csv(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(records[0]))
    writer.writeheader()
    writer.writerows(records)
    atomic_write(path, text.getvalue().encode())


def _write_heat_map(path: Path, ops: Sequence[Difficulty]) -> None:
    """Draw the teacher's loss by op, the most difficult first, and magnitude."""
    from matplotlib.figure import Figure

    table = by_op(ops)
    figure = Figure(figsize=(6, 0.35 * len(table) + 1.2), layout="constrained")
    axes = figure.add_subplot()
    losses = [[lines[m].means["loss"] for m in MAGNITUDES] for lines in table.values()]
    image = axes.imshow(losses, aspect="auto", cmap="viridis")
    axes.set_yticks(range(len(table)), list(table))
    axes.set_xticks(range(len(MAGNITUDES)), [f"{m:g}" for m in MAGNITUDES])
    axes.set_xlabel("magnitude")
    figure.colorbar(image, label="teacher's loss (nats)")
    figure.savefig(path, dpi=100)


def screen(teacher: str, results: Results) -> list[str]:
    """Return the lines that are printed: losses by magnitude, and every measure at magnitude 1."""
    clean = results.clean.means
    table = by_op(results.ops)
    losses = [["op", *(f"{m:g}" for m in SHOWN)]]
    losses += [[op, *(_interval(row[m], "loss") for m in SHOWN)] for op, row in table.items()]
    strongest = [row[max(MAGNITUDES)] for row in table.values()]
    easiest_first = sorted(results.policies, key=lambda line: line.means["loss"])
    return [
        f"Loss of {teacher} by op and magnitude, nats "
        f"(clean: loss {clean['loss']:.3f}, accuracy {clean['accuracy']:.3f})",
        *format_table(losses, left_columns=1),
        "Ops at magnitude 1",
        *format_table(_all_measures("op", strongest, results.clean), left_columns=1),
        "The grid's policies",
        *format_table(_all_measures("policy", easiest_first, results.clean), left_columns=1),
    ]


def _all_measures(first: str, lines: Sequence[Difficulty], clean: Difficulty) -> list[list[str]]:
    rows_of_table = [[first, *MEASURES, "affinity"]]
    for line in lines:
        intervals = [_interval(line, measure) for measure in MEASURES]
        rows_of_table.append([line.op, *intervals, f"{_affinity(line, clean):.3f}"])
    return rows_of_table


def _interval(line: Difficulty, measure: str) -> str:
    return f"{line.means[measure]:.3f} ± {line.half_widths[measure]:.3f}"


def correlations(launch: Launch, policies: Sequence[Difficulty]) -> list[dict[str, Any]]:
    """Return each measure's rank correlation with validation accuracy, per size that has results.

    The unit is a policy; with fewer than `FEWEST_POLICIES` of them the correlations are None. Arms
    whose images a teacher chooses or drops train with other images than were measured, and are left
    out.
    """
    plan, store = make_plan(launch.grid), Store(launch.store)
    means = {line.op: line.means for line in policies}
    axes = [name for name in launch.grid.axes if name not in ("magnitude", "policy", "seed")]
    sizes: dict[str, dict[str, list[float]]] = {}
    trial_rows = rows(launch.grid.name, plan, store, stage_states(store, plan.stages))
    for trial, row in zip(plan.trials, trial_rows, strict=True):
        if row["val_top1"] is not None and not trial.config.teacher.selects:
            size = ", ".join(f"{name} {row[name]}" for name in axes or ["width"])
            policy = plan.stages[row["stage"]].augment.policy
            sizes.setdefault(size, {}).setdefault(policy, []).append(row["val_top1"])
    records = []
    for size, scores in sizes.items():
        accuracy = [sum(of_policy) / len(of_policy) for of_policy in scores.values()]
        record: dict[str, Any] = {"size": size, "policies": len(scores)}
        for measure in MEASURES:
            values = [means[policy][measure] for policy in scores]
            enough = len(scores) >= FEWEST_POLICIES and len({*values}) > 1 and len({*accuracy}) > 1
            record[measure] = float(spearmanr(values, accuracy).statistic) if enough else None
        records.append(record)
    return records


def describe_correlations(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a line for each size."""
    lines = []
    for record in records:
        if record["policies"] < FEWEST_POLICIES:
            done = f"{record['policies']} of at least {FEWEST_POLICIES}"
            text = f"not computed, {done} policies are done"
        else:
            values = [(measure, record[measure]) for measure in MEASURES]
            text = ", ".join(f"{m} {'-' if v is None else format(v, '+.2f')}" for m, v in values)
        lines.append(f"rank correlation with validation accuracy, {record['size']}: {text}")
    return lines
