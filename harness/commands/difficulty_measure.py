"""The measurements of `difficulty`: a teacher's outputs on images of validation, augmented."""

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
    """What was measured, and on which images."""

    ops: list[Difficulty]  # each op of the policy alone, at each of MAGNITUDES
    policies: list[Difficulty]  # every policy of the grid
    clean: Difficulty  # images without augmentation
    images: int
    split_hash: str


def measure_policies(launch: Launch, policy: str) -> Results:
    """Measure the ops of `policy`, every policy of the grid, and clean images."""
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
    lines = list(measure(teacher, images, [*ops, *grid_policies, *clean], draws))
    count = len(ops)
    return Results(lines[:count], lines[count:-1], lines[-1], len(images.ids), split_hash)


def _validation_images(launch: Launch, device: torch.device) -> tuple[Images, str]:
    """Return up to `images=` images of validation, the same in every call, and the split's hash."""
    run, config = launch.run, launch.grid.trials[0].config
    dataset = load_dataset(config.dataset, run.data_root, run.loader, run.data_cache)
    loader = make_loader(dataset, run, 1, 0, 1, device)
    limit, count = launch.options["images"], len(dataset.validation)
    is_chosen = np.arange(count) < limit
    if loader.name != "resident":  # files are sorted by class: choose at random
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


def by_op(lines: Sequence[Difficulty]) -> dict[str, dict[float, Difficulty]]:
    """Return the lines by op and magnitude, the op with the greatest loss first."""
    table: dict[str, dict[float, Difficulty]] = {}
    for line in lines:
        table.setdefault(line.op, {})[line.magnitude] = line
    strongest = max(MAGNITUDES)
    return dict(sorted(table.items(), key=lambda item: -item[1][strongest].means["loss"]))


def calibrate(path: Path, policy: str, teacher: str, ops: Sequence[Difficulty]) -> int:
    """Write the policy's space with magnitudes of equal loss; return its number of ops per image.

    Raises UserError for a space that is made of chains of ops.
    """
    measured = parse_policy(with_magnitude(policy, 1.0))
    space = replace(measured.space, n=measured.n, fill=measured.fill)
    curves: Mapping[str, list[float]] = {
        op: [lines[m].means["loss"] for m in MAGNITUDES] for op, lines in by_op(ops).items()
    }
    table = calibrated(space, curves, MAGNITUDES, teacher)
    make_folder(path.parent)
    atomic_write(path, yaml.safe_dump(table, sort_keys=False, default_flow_style=None).encode())
    load_space(path)  # raises if it cannot be used
    return space.n
