"""How difficult augmentations are, by a trained network's word: a table, a heat map and a file.

    python -m harness.difficulty grid=quickstart teacher=0123456789abcdef out=out/difficulty
    python -m harness.difficulty grid=... teacher=timm:resnet50.a1_in1k images=2000 draws=2
    python -m harness.difficulty grid=... teacher=... calibrated=calibrated.yaml

Per op and magnitude of a policy, on validation images: the teacher's loss, accuracy,
probability of the true class, KL to its clean prediction, spread of its mean probability
(docs/difficulty.md). And for every policy of the grid its loss, which from then on is the column
`difficulty` of the sweep's rows.

teacher=ID|timm:NAME|timm:NAME@weights.pt|path/to/final.pt
where=TEXT    which trials' policies and images, as in harness.status
policy=TEXT   whose ops are told of (the grid's first), such as "randaug_strict(n=2)"
images=N      of validation (1000)      draws=N       augmentations of an image (1)
out=FOLDER    ops.csv, policies.csv, correlations.csv and heatmap.png as well
calibrated=FILE   write a space in which equal magnitude is equal loss
"""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.arguments import Option
from harness.errors import UserError, command

if TYPE_CHECKING:
    from harness.config import Launch
    from harness.train.difficulty import Images, Line

OPTIONS = {
    "teacher": Option(required=True, example="timm:resnet50.a1_in1k"),
    "policy": Option(),
    "images": Option(int, default=1000, low=2, high=10**7),  # one image has no spread
    "draws": Option(int, default=1, low=1, high=10**7),
    "out": Option(),
    "calibrated": Option(),
}
MAGNITUDES = tuple(at / 10 for at in range(11))
FEWEST_POLICIES = 5  # that a rank correlation is told of
SHOWN = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


def main(args: list[str]) -> int:
    """The command."""
    launch = _chosen(args)
    name, dataset, policy = _asked(launch)
    options = launch.options
    table = Path(options["calibrated"]) if options["calibrated"] else None
    _check_outputs(launch, policy)
    (lines, policies, clean), of = _measured(launch, name, policy)
    correlations = _correlations(launch, policies)
    tables = {
        "ops": [_plain(line, clean) for line in lines],
        "policies": [_plain(line, clean) for line in policies],
        "correlations": correlations,
    }
    record = {"teacher": name, "dataset": dataset, **of, "policy": policy, "clean": clean.means}
    record |= {**tables, "policies": {line["op"]: line for line in tables["policies"]}}
    _write(launch, record, tables)
    if options["out"]:
        _heat_map(Path(options["out"]) / "heatmap.png", lines)
    if table is not None:
        _calibrate(table, policy, name, lines)
    _show(name, clean, lines, policies)
    _tell(correlations)
    return 0


def _chosen(args: list[str]) -> Launch:
    """What is asked for, with those trials only that `where` holds for."""
    from dataclasses import replace

    from harness.cluster.select import look_at

    sweep = look_at(args, OPTIONS)
    wanted = {trial["trial"] for trial in sweep.trials}
    trials = tuple(trial for trial in sweep.launch.grid.trials if trial.id in wanted)
    if not trials:
        raise UserError(f"where={sweep.launch.options['where']} holds for no trial of the grid")
    return replace(sweep.launch, grid=replace(sweep.launch.grid, trials=trials))


def _check_outputs(launch: Launch, policy: str) -> None:
    """Refuse before minutes are spent what could not be written after them. Raises UserError."""
    from harness.augment.calibrate import refuse_chains
    from harness.augment.spaces import find_space
    from harness.files import CannotWrite, make_folder

    folders = {
        option: Path(launch.options[option])
        for option in ("out", "calibrated")
        if launch.options[option]
    }
    if (table := folders.get("calibrated")) is not None:
        if table.suffix not in (".yaml", ".yml"):
            raise UserError(
                f"calibrated={table}: a space is a YAML file, so name it {table.stem}.yaml"
            )
        refuse_chains(find_space(policy.partition("(")[0].strip()))
        folders["calibrated"] = table.parent
    for option, folder in folders.items():
        try:
            make_folder(folder)
        except CannotWrite as error:
            raise UserError(f"{option}: the folder {folder} cannot be made: {error}.") from error


def _asked(launch: Launch) -> tuple[str, str, str]:
    """Teacher, data set and policy. Raises UserError."""
    from harness.augment.policy import with_magnitude
    from harness.sweep.teachers import misfit

    configs = [trial.config for trial in launch.grid.trials]
    names = sorted({config.dataset.name for config in configs})
    if len(names) > 1:
        raise UserError(
            f"the grid {launch.grid.name} has several data sets ({', '.join(names)}): difficulty "
            f"is told for one at a time, so choose: where=\"dataset.name == '{names[0]}'\""
        )
    policy = launch.options["policy"] or configs[0].augment.policy
    if policy == "none":
        raise UserError("the policy is none: there is no op whose difficulty could be told")
    with_magnitude(policy, 1.0)
    name, dataset = launch.options["teacher"], configs[0].dataset
    if problem := misfit(name, launch.store, dataset):
        raise UserError(f"teacher: {problem}")
    return name, dataset.name, policy


def _measured(
    launch: Launch, name: str, policy: str
) -> tuple[tuple[list[Line], list[Line], Line], dict[str, Any]]:
    """Lines of the ops, of the grid's policies, of clean images; and which images these were."""
    import torch

    from harness.augment.policy import parse_policy
    from harness.sweep.plan import make_plan
    from harness.train.difficulty import measure, op_policies
    from harness.train.distributed import pick_device
    from harness.train.teacher import load

    torch.set_num_threads(launch.run.threads)
    device = pick_device(launch.run, 0)
    config = launch.grid.trials[0].config
    teacher = load(name, launch.store, config.dataset, device)
    images, split = _images(launch, device)
    draws = launch.options["draws"]
    texts = sorted({stage.augment.policy for stage in make_plan(launch.grid).stages.values()})
    every = [(text, 0.0, parse_policy(text)) for text in texts]
    clean = [("clean", 0.0, parse_policy("none"))]
    ops = op_policies(policy, MAGNITUDES)
    found = list(measure(teacher, images, [*ops, *every, *clean], draws))
    of = {"images": len(images.ids), "draws": draws, "split_hash": split}
    return (found[: len(ops)], found[len(ops) : -1], found[-1]), of


def _images(launch: Launch, device: Any) -> tuple[Images, str]:
    """Of validation, up to `images=`: the same ones for every op. And the hash of the split."""
    import numpy as np
    import torch

    from harness import rng
    from harness.data.datasets import load
    from harness.data.loader import make_loader
    from harness.train.difficulty import BATCH, Images

    run, config = launch.run, launch.grid.trials[0].config
    dataset = load(config.dataset, run.data_root, run.loader, run.data_cache)
    loader = make_loader(dataset, run, 1, 0, 1, device)
    wanted, batches, seen = launch.options["images"], [], 0
    number = len(dataset.validation)
    kept = np.arange(number) < wanted
    if loader.name != "resident":  # files are by class
        kept[:] = False
        kept[rng.permutation(0, "difficulty", 0, number)[:wanted]] = True
    try:
        for batch in loader.evaluate("validation", BATCH):
            here = kept[seen : seen + len(batch.ids)]
            seen += len(batch.ids)
            if here.any():
                mask = torch.from_numpy(here)
                images, labels = batch.images[mask], batch.labels[mask]
                batches.append((images.clone(), labels.clone(), batch.ids[here].copy()))
            if not kept[seen:].any():
                break
    finally:
        loader.close()
    pixels, targets, ids = zip(*batches, strict=True)
    found = Images(torch.cat(pixels), torch.cat(targets), np.concatenate(ids))
    return found, dataset.split_hash


def _plain(line: Line, clean: Line) -> dict[str, Any]:
    values = {"op": line.op, "magnitude": line.magnitude, **line.means}
    values["affinity"] = _affinity(line, clean)
    return values | {f"{key}_half": half for key, half in line.halves.items()}


def _affinity(line: Line, clean: Line) -> float:
    """Accuracy as a share of that on clean images."""
    return line.means["accuracy"] / max(1e-9, clean.means["accuracy"])


def _write(
    launch: Launch, record: dict[str, Any], tables: Mapping[str, Sequence[Mapping[str, Any]]]
) -> None:
    from harness.files import atomic_write, make_folder, write_json
    from harness.store.store import Store

    folder = Store(launch.store).sweep_folder(launch.grid.name)
    make_folder(folder)
    write_json(folder / "difficulty.json", record)
    if not launch.options["out"]:
        return
    out = make_folder(Path(launch.options["out"]))
    for name, lines in tables.items():
        if not lines:  # a sweep without results has no correlations
            continue
        text = io.StringIO()
        writer = csv.DictWriter(text, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)
        atomic_write(out / f"{name}.csv", text.getvalue().encode())


def _grid_of(lines: Sequence[Line]) -> dict[str, dict[float, Line]]:
    found: dict[str, dict[float, Line]] = {}
    for line in lines:
        found.setdefault(line.op, {})[line.magnitude] = line
    strongest = max(MAGNITUDES)
    return dict(sorted(found.items(), key=lambda item: -item[1][strongest].means["loss"]))


def _heat_map(path: Path, lines: Sequence[Line]) -> None:
    """The teacher's loss by op (most difficult first) and magnitude."""
    from matplotlib.figure import Figure

    table = _grid_of(lines)
    figure = Figure(figsize=(6, 0.35 * len(table) + 1.2), layout="constrained")
    axes = figure.add_subplot()
    losses = [[row[m].means["loss"] for m in MAGNITUDES] for row in table.values()]
    drawn = axes.imshow(losses, aspect="auto", cmap="viridis")
    axes.set_yticks(range(len(table)), list(table))
    axes.set_xticks(range(len(MAGNITUDES)), [f"{m:g}" for m in MAGNITUDES])
    axes.set_xlabel("magnitude")
    figure.colorbar(drawn, label="teacher's loss (nats)")
    figure.savefig(path, dpi=100)


def _calibrate(path: Path, policy: str, teacher: str, lines: Sequence[Line]) -> None:
    from dataclasses import replace

    import yaml

    from harness.augment.calibrate import calibrated
    from harness.augment.policy import parse_policy, with_magnitude
    from harness.augment.spaces import load_space
    from harness.files import atomic_write, make_folder

    asked = parse_policy(with_magnitude(policy, 1.0))
    space = replace(asked.space, n=asked.n, fill=asked.fill)  # as it was measured
    curves = {op: [row[m].means["loss"] for m in MAGNITUDES] for op, row in _grid_of(lines).items()}
    table = calibrated(space, curves, MAGNITUDES, teacher)
    make_folder(path.parent)
    atomic_write(path, yaml.safe_dump(table, sort_keys=False, default_flow_style=None).encode())
    load_space(path)
    print(f"wrote {path}: augment.policy={path}(n={space.n})")


def _show(name: str, clean: Line, lines: Sequence[Line], policies: Sequence[Line]) -> None:
    from rich.console import Console
    from rich.table import Table

    from harness.train.difficulty import MEASURES

    wide = Console(width=None if sys.stdout.isatty() else 120)
    said = f"clean: loss {clean.means['loss']:.3f}, accuracy {clean.means['accuracy']:.3f}"
    table = Table(title=f"Loss of {name} by op and magnitude, nats ({said})")
    table.add_column("op")
    for m in SHOWN:
        table.add_column(f"{m:g}", justify="right")
    for op, row in _grid_of(lines).items():
        table.add_row(op, *(_with_half(row[m], "loss") for m in SHOWN))
    wide.print(table)
    strongest = [row[max(MAGNITUDES)] for row in _grid_of(lines).values()]
    easiest_first = sorted(policies, key=lambda line: line.means["loss"])
    for title, part in (("Ops at magnitude 1", strongest), ("The grid's policies", easiest_first)):
        table = Table(title=title)
        for column in ("", *MEASURES, "affinity"):
            table.add_column(column, justify="right" if column else "left")
        for line in part:
            told = [_with_half(line, measured) for measured in MEASURES]
            table.add_row(line.op, *told, f"{_affinity(line, clean):.3f}")
        wide.print(table)


def _with_half(line: Line, measured: str) -> str:
    return f"{line.means[measured]:.3f} ± {line.halves[measured]:.3f}"


def _correlations(launch: Launch, policies: Sequence[Line]) -> list[dict[str, Any]]:
    """Where the grid has results: each measure's rank correlation with accuracy, per size.

    Policies are counted; of fewer than `FEWEST_POLICIES` the correlations are None. Arms whose
    images a teacher chooses or drops train with others than were measured, and are left out.
    """
    from scipy.stats import spearmanr

    from harness.cluster.state import stage_states
    from harness.rows import rows
    from harness.store.store import Store
    from harness.sweep.plan import make_plan
    from harness.train.difficulty import MEASURES

    plan, store = make_plan(launch.grid), Store(launch.store)
    said = {line.op: line.means for line in policies}
    axes = [name for name in launch.grid.axes if name not in ("magnitude", "policy", "seed")]
    sizes: dict[str, dict[str, list[float]]] = {}
    made = rows(launch.grid.name, plan, store, stage_states(store, plan.stages))
    for trial, row in zip(plan.trials, made, strict=True):
        if row["val_top1"] is not None and not trial.config.teacher.selects:
            size = ", ".join(f"{name} {row[name]}" for name in axes or ["width"])
            policy = plan.stages[row["stage"]].augment.policy
            sizes.setdefault(size, {}).setdefault(policy, []).append(row["val_top1"])
    found = []
    for size, scores in sizes.items():
        accuracy = [sum(of_policy) / len(of_policy) for of_policy in scores.values()]
        line: dict[str, Any] = {"size": size, "policies": len(scores)}
        for measured in MEASURES:
            values = [said[policy][measured] for policy in scores]
            enough = len(scores) >= FEWEST_POLICIES and len({*values}) > 1 and len({*accuracy}) > 1
            line[measured] = float(spearmanr(values, accuracy).statistic) if enough else None
        found.append(line)
    return found


def _tell(correlations: Sequence[Mapping[str, Any]]) -> None:
    from harness.train.difficulty import MEASURES

    for line in correlations:
        if line["policies"] < FEWEST_POLICIES:
            said = f"not told, {line['policies']} of at least {FEWEST_POLICIES} policies are done"
        else:
            known = [(name, line[name]) for name in MEASURES]
            said = ", ".join(f"{n} {'-' if v is None else format(v, '+.2f')}" for n, v in known)
        print(f"rank correlation with validation accuracy, {line['size']}: {said}")


if __name__ == "__main__":
    command(main, __doc__)
