"""The accuracy of each class at the best magnitude of each size, from the counts in the store."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.best import SizeResult
from analysis.cells import Cell
from harness import statistics as stats
from harness.arguments import split_list
from harness.config import load
from harness.data.classes import class_counts
from harness.errors import UserError
from harness.files import Damaged
from harness.statistics import ClassCounts
from harness.store.store import Store
from harness.sweep.plan import make_plan


@dataclass(frozen=True)
class ClassResult:
    """The accuracy of one class at one size, means over seeds; NaN where it is not known."""

    size: dict[str, Any]
    number: int  # of the class, from 0
    images: int  # of the class in test
    best: float  # accuracy on test at the best magnitude
    magnitude: float | str
    none: float  # without augmentation
    change: float  # best - none
    half: float  # half of a 95 % t interval of the change


def counts_of_stages(words: Sequence[str], stages: set[str]) -> dict[str, ClassCounts]:
    """Return the counts on test of each finished stage of the sweeps that `words` name.

    Raises UserError where the counts of a stage are not known.
    """
    grids = [name for word in words if word.startswith("grid=") for name in split_list(word[5:])]
    others = [word for word in words if not word.startswith("grid=")]
    counts: dict[str, ClassCounts] = {}
    for grid in grids:
        launch = load([f"grid={grid}", *others])
        store, plan = Store(launch.store), make_plan(launch.grid)
        for stage in sorted(stages & plan.stages.keys() - counts.keys()):
            try:
                result = store.result(stage)
            except (FileNotFoundError, Damaged) as error:
                raise UserError(f"the result of stage {stage} cannot be read: {error}") from error
            config, run = plan.stages[stage].dataset, launch.run
            known = class_counts(store, stage, result, config, run.data_root, run.loader)
            if isinstance(known, str):
                raise UserError(f"the accuracy per class of stage {stage} is not known: {known}")
            counts[stage] = known["test"]
    return counts


def class_results(
    results: Sequence[SizeResult], counts: Mapping[str, ClassCounts]
) -> list[ClassResult]:
    """Return the accuracy of each class at each size that has a best magnitude.

    Classes of a size are in order of the change, those that lose most first.
    """
    table: list[ClassResult] = []
    for result in results:
        if result.best is None:
            continue
        best = _accuracies(result.best, counts)
        none = None if result.none is None else _accuracies(result.none, counts)
        images = counts[result.best.stages[0]].images
        of_size = [
            _class_result(result, number, int(images[number]), best[:, number],
                          None if none is None else none[:, number])
            for number in range(best.shape[1])
            if images[number]
        ]  # fmt: skip
        table += sorted(of_size, key=lambda c: (math.isnan(c.change), c.change, c.best))
    return table


def _accuracies(cell: Cell, counts: Mapping[str, ClassCounts]) -> NDArray[np.float64]:
    """Return the accuracies [seeds, classes] of the stages of a cell."""
    return np.stack([counts[stage].accuracies for stage in cell.stages])


def _class_result(
    result: SizeResult,
    number: int,
    images: int,
    best: NDArray[np.float64],
    none: NDArray[np.float64] | None,
) -> ClassResult:
    assert result.best is not None
    change = half = none_mean = math.nan
    if none is not None:
        none_mean = float(none.mean())
        cells = {"best": best.tolist(), "none": none.tolist()}
        noise = stats.spreads(cells)
        estimate = stats.difference(cells["best"], noise["best"], cells["none"], noise["none"])
        change, half = float(best.mean()) - none_mean, estimate.half
        if result.none is result.best:
            half = math.nan
    mean = float(best.mean())
    return ClassResult(
        result.size, number, images, mean, result.best.magnitude, none_mean, change, half
    )
