"""The best magnitude for each size: chosen on validation, reported on test.

A test number takes part in no choice. Cells with a diverged seed are shown but cannot be chosen;
missing seeds are shown.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd

from analysis.cells import (
    LENGTHS,
    Cell,
    best_cell,
    cells_per_size,
    magnitude_key,
    mean_counts,
    ranges,
    size_columns,
)
from analysis.columns import NONE, TOP1, Metric
from analysis.provenance import differing_columns
from harness import statistics as stats
from harness.statistics import Optimum, optimum

POLICY = ("policy", "calibrated")  # size columns that do not matter for `none`
MOST_OPTIMA = 500  # sizes for which the smooth optimum is computed: each takes some 2 ms


@dataclass(frozen=True)
class SizeResult:
    """The result for one size, a row of the table.

    `_half` is the half-width of a 95 % t interval, NaN with one seed.
    """

    size: dict[str, Any]
    cells: tuple[Cell, ...]
    params: float | None  # mean number of non-zero parameters
    best: Cell | None = None  # None where no cell is usable
    ties: tuple[float | str, ...] = ()  # magnitudes that tie with the best, which is among them
    optimum: Optimum | None = None  # of the smooth curve, on validation
    test: float = math.nan  # mean test result at the best magnitude
    test_half: float = math.nan
    gain: float = math.nan  # on test over `none`; with any metric, positive is better
    gain_half: float = math.nan
    test_spread: stats.Spread = stats.UNKNOWN
    differs_in: tuple[str, ...] = ()  # provenance columns in which its rows differ; flags
    none: Cell | None = None  # the cell that gain refers to: of this size, or of another policy
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Lowest and highest number of epochs, examples and test images of its trials, where known."""


def magnitudes_of(results: Sequence[SizeResult]) -> list[float | str]:
    """Return the magnitudes of all cells, `none` first."""
    magnitudes = {cell.magnitude for result in results for cell in result.cells}
    return sorted(magnitudes, key=magnitude_key)


def best_per_size(
    frame: pd.DataFrame, by: Sequence[str] | None = None, metric: Metric = TOP1, optima: bool = True
) -> list[SizeResult]:
    """Return the result for each size, in the order of the size columns.

    `optima=False` leaves the smooth optimum out. Raises UserError where rows of one cell are not
    replicates of each other.
    """
    columns = size_columns(frame, by)
    sizes = cells_per_size(frame, columns, metric)
    counted = mean_counts(frame, columns)
    differing = differing_columns(counted, columns)
    lengths = ranges(counted, columns, (*LENGTHS, "test_images"))
    none_cells = {
        _without_policy(size): cell for size, cells, _ in sizes if (cell := _none_cell(cells))
    }
    results = []
    for size, cells, params in sizes:
        none = _none_cell(cells) or none_cells.get(_without_policy(size))
        differs_in = differing.get(tuple(size.values()), ())
        result = SizeResult(size, cells, params, none=none, differs_in=differs_in,
                            ranges=lengths.get(tuple(size.values()), {}))  # fmt: skip
        results.append(_evaluate(result, metric, optima and len(sizes) <= MOST_OPTIMA))
    return results


def _none_cell(cells: Sequence[Cell]) -> Cell | None:
    return next((cell for cell in cells if cell.magnitude == NONE and cell.is_usable), None)


def _without_policy(size: dict[str, Any]) -> tuple[Any, ...]:
    """Return what identifies a size for `none`: no augmentation is the same under every policy."""
    return tuple(value for name, value in size.items() if name not in POLICY)


def _evaluate(result: SizeResult, metric: Metric, with_optimum: bool) -> SizeResult:
    """Return the result with the best magnitude, its ties, the smooth optimum and the gain."""
    usable = [cell for cell in result.cells if cell.is_usable]
    if not usable:
        return result
    best, none = best_cell(usable, metric), result.none
    val_spread = stats.pooled([cell.val for cell in usable])
    test_spread = stats.pooled([cell.test for cell in usable])
    tied = stats.ties({cell.magnitude: cell.val for cell in usable}, best.magnitude, val_spread)
    gain = gain_half = math.nan
    if none:
        gain = metric.sign * (best.mean_test - none.mean_test)
    if none and none is not best:
        compared = usable if none in usable else [*usable, none]
        gain_spread = stats.pooled([cell.test for cell in compared])
        gain_half = stats.half_width(gain_spread, len(best.test), len(none.test))
    return replace(
        result,
        best=best,
        ties=tuple(sorted(tied, key=magnitude_key)),  # type: ignore[arg-type]
        optimum=smooth_optimum(usable, val_spread, metric) if with_optimum else None,
        test=best.mean_test,
        test_half=stats.half_width(test_spread, len(best.test)),
        gain=gain,
        gain_half=gain_half,
        test_spread=test_spread,
    )


def smooth_optimum(cells: Sequence[Cell], spread: stats.Spread, metric: Metric) -> Optimum | None:
    """Return where between their magnitudes these cells of one size would be best on validation."""
    numeric = [cell for cell in cells if cell.magnitude != NONE]
    return optimum(
        [float(cell.magnitude) for cell in numeric],
        [metric.sign * cell.mean_val for cell in numeric],
        [len(cell.val) for cell in numeric],
        spread,
    )
