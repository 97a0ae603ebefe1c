"""Measure for `harness.difficulty` how a teacher judges augmented validation images."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import yaml

from harness import rng
from harness.augment.calibrate import calibrated
from harness.augment.policy import parse_policy, with_magnitude
from harness.augment.spaces import load_space
from harness.config import Launch
from harness.data.datasets import load as load_dataset
from harness.data.loader import make_loader
from harness.files import atomic_write, make_folder
from harness.sweep.plan import make_plan
from harness.train.difficulty import BATCH, Difficulty, Images, measure, op_policies
from harness.train.distributed import pick_device
from harness.train.teacher import load_teacher

MAGNITUDES = tuple(number / 10 for number in range(11))


@dataclass(frozen=True)
class Results:
    """The difficulties that were measured, and the images that they were measured on.

    Each row of the tables is an op or a policy (column `op`) at a `magnitude`. Its columns are the
    measures (`loss`), half of their 95 % intervals (`loss_half`), and `affinity`: the accuracy
    divided by that on clean images (Gontijo-Lopes et al. 2021).
    """

    ops: pd.DataFrame  # each op of the policy alone, at each of MAGNITUDES
    policies: pd.DataFrame  # each policy of the grid
    clean: pd.Series  # images without augmentation
    images: int  # number of images
    split_hash: str
    teacher: dict[str, list[float]]  # mean and standard deviation by which it normalises images


def measure_policies(launch: Launch, policy: str) -> Results:
    """Return the difficulty of each op of `policy`, of the grid's policies and of clean images."""
    torch.set_num_threads(launch.run.threads)
    device = pick_device(launch.run, 0)
    dataset = launch.grid.trials[0].config.dataset
    teacher = load_teacher(launch.options["teacher"], launch.store, dataset, device)
    images, split_hash = _validation_images(launch, device)
    stages = make_plan(launch.grid).stages.values()
    ops = op_policies(policy, MAGNITUDES)
    # `none`, clean images, must be last: see `table_of`
    names = [*sorted({stage.augment.policy for stage in stages}), "none"]
    # the magnitude is in the policy's name; 0.0 only fills the column
    grid_policies = [(name, 0.0, parse_policy(name)) for name in names]
    measured = measure(teacher, images, [*ops, *grid_policies], launch.options["draws"])
    table = table_of(measured)
    return Results(
        ops=table[: len(ops)],
        policies=table[len(ops) : -1],
        clean=table.iloc[-1],
        images=len(images.ids),
        split_hash=split_hash,
        teacher=teacher.normalisation(),
    )


def table_of(difficulties: Iterable[Difficulty]) -> pd.DataFrame:
    """Return difficulties as one of the tables of `Results`; the last one is of clean images."""
    table = pd.DataFrame(
        {
            "op": difficulty.op,
            "magnitude": difficulty.magnitude,
            **difficulty.means,
            **{f"{name}_half": half for name, half in difficulty.half_widths.items()},
        }
        for difficulty in difficulties
    )
    table["affinity"] = table["accuracy"] / max(1e-9, table["accuracy"].iloc[-1])
    return table


def _validation_images(launch: Launch, device: torch.device) -> tuple[Images, str]:
    """Return validation images, at most `images=` of them, and the hash of the split.

    Every call with the same arguments chooses the same images.
    """
    run, config = launch.run, launch.grid.trials[0].config
    dataset = load_dataset(config.dataset, run.data_root, run.loader, run.data_cache)
    loader = make_loader(dataset, run, batch_size=1, rank=0, world_size=1, device=device)
    limit, count = launch.options["images"], len(dataset.validation)
    is_chosen = np.zeros(count, bool)
    if loader.name == "resident":  # the split has shuffled the images
        is_chosen[:limit] = True
    else:  # files are sorted by class, so the first ones would not be a sample of all classes
        is_chosen[rng.permutation(0, "difficulty", 0, count)[:limit]] = True
    batches = []
    seen = 0
    try:
        for batch in loader.evaluate("validation", BATCH):
            chosen = is_chosen[seen : seen + len(batch.ids)]
            seen += len(batch.ids)
            if chosen.any():
                mask = torch.from_numpy(chosen)
                images, labels = batch.images[mask], batch.labels[mask]
                batches.append((images.clone(), labels.clone(), batch.ids[chosen].copy()))
            if not is_chosen[seen:].any():
                break
    finally:
        loader.close()
    pixels, targets, ids = zip(*batches, strict=True)
    return Images(torch.cat(pixels), torch.cat(targets), np.concatenate(ids)), dataset.split_hash


def losses_by_op(ops: pd.DataFrame) -> pd.DataFrame:
    """Return the loss of each op (row) and magnitude (column), the most difficult op first."""
    losses = ops.pivot(index="op", columns="magnitude", values="loss")
    return losses.loc[losses[max(MAGNITUDES)].sort_values(ascending=False).index]


def calibrate(path: Path, policy: str, teacher: str, ops: pd.DataFrame) -> int:
    """Write the calibrated form of the policy's space to `path`; return its number of ops, `n`.

    In the calibrated space, equal magnitude means equal loss of the teacher, which the file names.
    Raises UserError for a space that is made of chains of ops.
    """
    parsed = parse_policy(with_magnitude(policy, 1.0))
    space = replace(parsed.space, n=parsed.n, fill=parsed.fill)
    curves = {str(op): row.tolist() for op, row in losses_by_op(ops).iterrows()}
    table = calibrated(space, curves, MAGNITUDES, teacher)
    make_folder(path.parent)
    atomic_write(path, yaml.safe_dump(table, sort_keys=False, default_flow_style=None).encode())
    load_space(path)  # raises UserError if the file is not a valid space
    return space.n
