"""The outputs of `difficulty`: tables on the screen, CSV files, a heat map, the sweep's record."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd

from harness.cluster.state import stage_states
from harness.commands.difficulty_measure import MAGNITUDES, Results, losses_by_op
from harness.config import Launch
from harness.files import atomic_write, make_folder, user_path
from harness.rows import rows
from harness.statistics import FEWEST_PAIRS, rank_correlation
from harness.store.records import write_sealed
from harness.store.store import Store
from harness.sweep.plan import make_plan
from harness.text_table import format_table
from harness.train.difficulty import MEASURES

SHOWN = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]  # magnitudes on the screen


def write(launch: Launch, policy: str, results: Results, correlation_rows: pd.DataFrame) -> None:
    """Write the sweep's `difficulty.json`, which `harness.rows` reads, and the files in `out=`."""
    folder = make_folder(Store(launch.store).sweep_folder(launch.grid.name))
    write_sealed(
        folder / "difficulty.json",
        {
            "teacher": launch.options["teacher"],
            "teacher_normalisation": results.teacher,
            "dataset": launch.grid.trials[0].config.dataset.name,
            "images": results.images,
            "draws": launch.options["draws"],
            "split_hash": results.split_hash,
            "policy": policy,
            "clean": {measure: float(results.clean[measure]) for measure in MEASURES},
            "ops": results.ops.to_dict("records"),
            "policies": {record["op"]: record for record in results.policies.to_dict("records")},
            "correlations": correlation_rows.to_dict("records"),
        },
    )
    if not launch.options["out"]:
        return
    out = make_folder(user_path(launch.options["out"], "out"))
    tables = {"ops": results.ops, "policies": results.policies, "correlations": correlation_rows}
    for name, table in tables.items():
        if len(table):  # a sweep without results has no correlations
            atomic_write(out / f"{name}.csv", table.to_csv(index=False).encode())
    _write_heat_map(out / "heatmap.png", losses_by_op(results.ops))


def _write_heat_map(path: Path, losses: pd.DataFrame) -> None:
    """Draw the teacher's loss by op, the most difficult first, and magnitude."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 0.35 * len(losses) + 1.2), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(losses, aspect="auto", cmap="viridis")
    axes.set_yticks(range(len(losses)), list(losses.index))
    axes.set_xticks(range(len(MAGNITUDES)), [f"{m:g}" for m in MAGNITUDES])
    axes.set_xlabel("magnitude")
    figure.colorbar(image, label="teacher's loss (nats)")
    figure.savefig(path, dpi=100)


def screen(teacher: str, results: Results) -> list[str]:
    """Return the lines that are printed: losses by magnitude, and every measure at magnitude 1."""
    order = losses_by_op(results.ops).index
    texts = results.ops.assign(text=_intervals(results.ops, "loss"))
    losses = texts.pivot(index="op", columns="magnitude", values="text").loc[order, SHOWN]
    strongest = results.ops[results.ops["magnitude"] == max(MAGNITUDES)].set_index("op").loc[order]
    clean = results.clean
    return [
        f"Loss of {teacher} by op and magnitude, nats "
        f"(clean: loss {clean['loss']:.3f}, accuracy {clean['accuracy']:.3f})",
        *format_table([["op", *(f"{m:g}" for m in SHOWN)], *_cells(losses)], left_columns=1),
        "Ops at magnitude 1",
        *_all_measures("op", strongest),
        "The grid's policies",
        *_all_measures("policy", results.policies.sort_values("loss").set_index("op")),
    ]


def _all_measures(first: str, table: pd.DataFrame) -> list[str]:
    """Return the lines of a table of every measure with its interval; `first` names the index."""
    texts = pd.DataFrame({measure: _intervals(table, measure) for measure in MEASURES})
    texts["affinity"] = table["affinity"].map("{:.3f}".format)
    return format_table([[first, *texts.columns], *_cells(texts)], left_columns=1)


def _intervals(table: pd.DataFrame, measure: str) -> pd.Series:
    return table[measure].map("{:.3f}".format) + table[f"{measure}_half"].map(" ± {:.3f}".format)


def _cells(table: pd.DataFrame) -> list[list[str]]:
    """Return the rows of a table of texts, each with its index first."""
    return [list(row) for row in table.itertuples(name=None)]


def correlations(launch: Launch, policies: pd.DataFrame) -> pd.DataFrame:
    """Return each measure's rank correlation with validation accuracy, per size that has results.

    The unit is a policy; with fewer than `FEWEST_PAIRS` of them the correlations are None. Arms
    whose images a teacher chooses or drops train with other images than were measured, and are left
    out.
    """
    plan, store = make_plan(launch.grid), Store(launch.store)
    axes = [name for name in launch.grid.axes if name not in ("magnitude", "policy", "seed")]
    trial_rows = rows(launch.grid.name, plan, store, stage_states(store, plan.stages))
    results = [
        {
            "size": ", ".join(f"{name} {row[name]}" for name in axes or ["width"]),
            "op": plan.stages[row["stage"]].augment.policy,
            "accuracy": row["val_top1"],
        }
        for trial, row in zip(plan.trials, trial_rows, strict=True)
        if row["val_top1"] is not None and not trial.config.teacher.selects
    ]
    records = []
    frame = pd.DataFrame(results, columns=["size", "op", "accuracy"])
    for size, of_size in frame.groupby("size", sort=False):
        accuracy = of_size.groupby("op")["accuracy"].mean()
        measured = policies.set_index("op").loc[accuracy.index]
        correlated = {m: _rank_correlation(measured[m], accuracy) for m in MEASURES}
        records.append({"size": size, "policies": len(accuracy), **correlated})
    return pd.DataFrame(records, dtype=object)


def _rank_correlation(measure: pd.Series, accuracy: pd.Series) -> float | None:
    """Return Spearman's rho; None for too few policies, and where one side is constant."""
    rho = rank_correlation(measure.tolist(), accuracy.tolist()).effect
    return None if math.isnan(rho) else rho


def describe_correlations(table: pd.DataFrame) -> list[str]:
    """Return a line for each size."""
    lines = []
    for record in table.to_dict("records"):
        rhos = {measure: record[measure] for measure in MEASURES}
        text = ", ".join(f"{m} {'-' if rho is None else f'{rho:+.2f}'}" for m, rho in rhos.items())
        if record["policies"] < FEWEST_PAIRS:
            done = f"{record['policies']} of at least {FEWEST_PAIRS}"
            text = f"not computed, {done} policies are done"
        lines.append(f"rank correlation with validation accuracy, {record['size']}: {text}")
    return lines
