"""Measure for `harness.difficulty` how a teacher judges augmented validation images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
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
    """The difficulties that were measured, and the images that they were measured on."""

    ops: list[Difficulty]  # each op of the policy alone, at each of MAGNITUDES
    policies: list[Difficulty]  # each policy of the grid
    clean: Difficulty  # images without augmentation
    images: int  # number of images
    split_hash: str
    teacher: dict[str, list[float]]  # mean and deviation of the images that it takes


def measure_policies(launch: Launch, policy: str) -> Results:
    """Return the difficulty of each op of `policy`, of the grid's policies and of clean images."""
    torch.set_num_threads(launch.run.threads)
    device = pick_device(launch.run, 0)
    dataset = launch.grid.trials[0].config.dataset
    teacher = load_teacher(launch.options["teacher"], launch.store, dataset, device)
    images, split_hash = _validation_images(launch, device)
    stages = make_plan(launch.grid).stages.values()
    grid_policies = [
        (text, 0.0, parse_policy(text)) for text in sorted({s.augment.policy for s in stages})
    ]
    clean = [("clean", 0.0, parse_policy("none"))]
    ops = op_policies(policy, MAGNITUDES)
    draws = launch.options["draws"]
    measured = list(measure(teacher, images, [*ops, *grid_policies, *clean], draws))
    count = len(ops)
    return Results(
        ops=measured[:count],
        policies=measured[count:-1],
        clean=measured[-1],
        images=len(images.ids),
        split_hash=split_hash,
        teacher=teacher.normalisation(),
    )


def _validation_images(launch: Launch, device: torch.device) -> tuple[Images, str]:
    """Return validation images, at most `images=` of them, and the hash of the split.

    Every call with the same arguments chooses the same images.
    """
    run, config = launch.run, launch.grid.trials[0].config
    dataset = load_dataset(config.dataset, run.data_root, run.loader, run.data_cache)
    loader = make_loader(dataset, run, 1, 0, 1, device)
    limit, count = launch.options["images"], len(dataset.validation)
    is_chosen = np.arange(count) < limit
    # Image files are sorted by class, so the first ones would not be a sample of all classes.
    if loader.name != "resident":
        is_chosen[:] = False
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


def by_op(difficulties: Sequence[Difficulty]) -> dict[str, dict[float, Difficulty]]:
    """Return the difficulties by op and magnitude, the op with the greatest loss first."""
    table: dict[str, dict[float, Difficulty]] = {}
    for difficulty in difficulties:
        table.setdefault(difficulty.op, {})[difficulty.magnitude] = difficulty
    strongest = max(MAGNITUDES)
    return dict(sorted(table.items(), key=lambda item: -item[1][strongest].means["loss"]))


def calibrate(path: Path, policy: str, teacher: str, ops: Sequence[Difficulty]) -> int:
    """Write the calibrated form of the policy's space to `path`, and return the policy's `n`.

    In the calibrated space, equal magnitude means equal teacher loss. Raises UserError for a space
    that is made of chains of ops.
    """
    parsed = parse_policy(with_magnitude(policy, 1.0))
    space = replace(parsed.space, n=parsed.n, fill=parsed.fill)
    curves: Mapping[str, list[float]] = {
        op: [by_magnitude[m].means["loss"] for m in MAGNITUDES]
        for op, by_magnitude in by_op(ops).items()
    }
    table = calibrated(space, curves, MAGNITUDES, teacher)
    make_folder(path.parent)
    atomic_write(path, yaml.safe_dump(table, sort_keys=False, default_flow_style=None).encode())
    load_space(path)  # raises UserError if the file is not a valid space
    return space.n
