"""The best magnitude for each size: chosen on validation, reported on test.

The choice is that of `harness.statistics.choose`, as in sweeps that settle. A test number takes
part in no choice. Cells with a diverged seed are shown but cannot be chosen, because the mean of
the seeds that survived would be too high. Such a cell is `open` (it may be better, and cannot be
judged), unless all its seeds diverged or the others are clearly worse.
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
    cells_per_size,
    difference_on_test,
    magnitude_key,
    mean_counts,
    ranges,
    size_columns,
)
from analysis.columns import NONE, TOP1, Metric
from analysis.provenance import differing_columns
from harness import statistics as stats
from harness.statistics import Evidence, Optimum, Spread, evidence, optimum

POLICY = ("policy", "calibrated")  # size columns that do not matter for `none`
MOST_CURVES = 500  # sizes for which curves are computed: each takes some 4 ms


@dataclass(frozen=True)
class SizeResult:
    """The result for one size, a row of the table.

    `_half` is the half-width of a 95 % t interval, NaN with one seed.
    """

    size: dict[str, Any]
    cells: tuple[Cell, ...]
    params: float | None  # mean number of non-zero parameters
    best: Cell | None = None  # None where no cell is usable
    is_by_curve: bool = False  # whether the best has the lowest loss on a curve, else highest mean
    ties: tuple[float | str, ...] = ()  # magnitudes that tie with the best, which is among them
    open: tuple[float | str, ...] = ()  # magnitudes that may be better, and cannot be judged yet
    detectable: float = math.nan  # validation difference of two magnitudes, with 80 % power
    optimum: Optimum | None = None  # of the smooth curve, on validation
    test: float = math.nan  # mean test result at the best magnitude
    test_half: float = math.nan  # like gain_half, widened because the best was chosen among ties
    gain: float = math.nan  # on test over `none`; with any metric, positive is better
    gain_half: float = math.nan
    test_spreads: Mapping[float | str, Spread] = field(default_factory=dict)  # by magnitude
    differs_in: tuple[str, ...] = ()  # provenance columns in which its rows differ, and flags
    none: Cell | None = None  # the cell that `gain` is measured from; of another policy if need be
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Lowest and highest number of epochs, examples and test images of its trials, where known."""

    @property
    def ruled_out(self) -> tuple[float | str, ...]:
        """Magnitudes that the sweep's rule (`settle`) left out before they were trained."""
        return tuple(cell.magnitude for cell in self.cells if cell.is_ruled_out)

    @property
    def has_unjudged_divergence(self) -> bool:
        """Whether trainings diverged at magnitudes that may be best."""
        is_undecided = self.best is None or bool(self.open)
        return is_undecided and any(cell.diverged for cell in self.cells)


def magnitudes_of(results: Sequence[SizeResult]) -> list[float | str]:
    """Return the magnitudes of all cells, `none` first."""
    magnitudes = {cell.magnitude for result in results for cell in result.cells}
    return sorted(magnitudes, key=magnitude_key)


def seed_counts(results: Sequence[SizeResult]) -> set[int]:
    """Return the numbers of finished seeds that cells have, without 0."""
    return {len(cell.val) for result in results for cell in result.cells if cell.val}


def best_per_size(
    frame: pd.DataFrame, by: Sequence[str] | None = None, metric: Metric = TOP1, optima: bool = True
) -> list[SizeResult]:
    """Return the result for each size, in the order of the size columns.

    `optima=False` leaves the smooth optimum out. Of more than `MOST_CURVES` sizes, no curves are
    computed: the best is the highest mean, and there is no optimum. Raises UserError where rows of
    one cell are not replicates of each other.
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
        results.append(_evaluate(result, metric, len(sizes) <= MOST_CURVES, optima))
    return results


def _none_cell(cells: Sequence[Cell]) -> Cell | None:
    return next((cell for cell in cells if cell.magnitude == NONE and cell.is_usable), None)


def _without_policy(size: dict[str, Any]) -> tuple[Any, ...]:
    """Return the size without its policy, because `none` is the same under every policy."""
    return tuple(value for name, value in size.items() if name not in POLICY)


def _evaluate(result: SizeResult, metric: Metric, with_curves: bool, optima: bool) -> SizeResult:
    """Return the result with the best magnitude, its ties, the smooth optimum and the gain.

    Without curves the best is the highest mean, and there is no optimum.
    """
    test_spreads = stats.spreads({cell.magnitude: cell.test for cell in result.cells if cell.val})
    result = replace(result, test_spreads=test_spreads)
    usable = {cell.magnitude: cell for cell in result.cells if cell.is_usable}
    if not usable:
        return replace(result, open=_open(result.cells, None, metric))
    scores = {magnitude: cell.val for magnitude, cell in usable.items()}
    spreads = stats.spreads(scores)
    places = {m: None if m == NONE else float(m) for m in usable}
    is_by_curve = with_curves and stats.has_curve(places.values(), spreads.values())
    if is_by_curve:
        best = usable[stats.choose(scores, places, spreads, metric.sign)]
    else:
        best = usable[stats.highest_mean(scores, spreads, metric.sign)]
    ties = _sorted(stats.ties(scores, best.magnitude, spreads, metric.sign))
    open_magnitudes = _open(result.cells, best, metric)
    spread = spreads[best.magnitude]
    # as noisy as the difference of two such cells
    of_two = stats.difference(best.val, spread, best.val, spread)
    result = replace(
        result,
        best=best,
        is_by_curve=is_by_curve,
        ties=ties,
        open=open_magnitudes,
        detectable=stats.detectable(of_two, len(usable) - 1, sides=1),
    )
    candidates = len({*ties, *open_magnitudes})
    gain = gain_half = math.nan
    if result.none is best:
        gain = 0.0
    elif result.none:
        cells = list(usable.values())
        estimate = difference_on_test(best, result.none, cells, metric, candidates)
        gain, gain_half = estimate.effect, estimate.half
    return replace(
        result,
        optimum=_smooth_optimum(result, metric) if with_curves and optima else None,
        test=best.mean_test,
        test_half=stats.half_width(test_spreads[best.magnitude], len(best.test), candidates),
        gain=gain,
        gain_half=gain_half,
    )


def _sorted(magnitudes: Sequence[float | str]) -> tuple[float | str, ...]:
    return tuple(sorted(magnitudes, key=magnitude_key))


def _open(cells: Sequence[Cell], best: Cell | None, metric: Metric) -> tuple[float | str, ...]:
    """Return the magnitudes that cannot be judged yet: no seed is done, or some diverged.

    A cell is not open if all of its seeds diverged or were ruled out, or if its other seeds are
    clearly worse than the best. If no cell is usable, every cell with a result and a diverged seed
    is open.
    """
    scores = {cell.magnitude: cell.val for cell in cells if cell.val}
    unsettled = [cell for cell in cells if not cell.is_usable and cell.diverged < cell.seeds]
    if best is None:
        return _sorted([cell.magnitude for cell in unsettled if cell.val])
    if not unsettled:
        return ()
    tied = stats.ties(scores, best.magnitude, stats.spreads(scores), metric.sign)
    return _sorted([c.magnitude for c in unsettled if not c.val or c.magnitude in tied])


def position(magnitude: float | str) -> float:
    """Return the magnitude as a number; `none` is 0, because both change nothing."""
    return 0.0 if magnitude == NONE else float(magnitude)


def optimum_evidence(cells: Sequence[Cell], metric: Metric) -> Evidence | None:
    """Return how well each position of the optimum explains the validation means of one size.

    Returns None for fewer than 3 usable magnitudes, or with one seed.
    """
    usable = {cell.magnitude: cell for cell in cells if cell.is_usable}
    spreads = stats.spreads({magnitude: cell.val for magnitude, cell in usable.items()})
    return evidence(
        [position(magnitude) for magnitude in usable],
        [metric.sign * cell.mean_val for cell in usable.values()],
        [spreads[m].deviation / math.sqrt(len(cell.val)) for m, cell in usable.items()],
        min((spread.freedom for spread in spreads.values()), default=0),
    )


def _smooth_optimum(result: SizeResult, metric: Metric) -> Optimum | None:
    """Return the optimum; its interval holds the magnitudes next to the ties and to open cells.

    A magnitude that was ruled out is such a neighbour, too: the sweep's rule shows that it
    is not better. The interval is cut off at the lowest and the highest magnitude. `none` is a
    point of the curve, at 0, but not an end.
    """
    evidence_of_size = optimum_evidence(result.cells, metric)
    if evidence_of_size is None:
        return None
    possible_best = [position(magnitude) for magnitude in (*result.ties, *result.open)]
    positions = [
        position(cell.magnitude) for cell in result.cells if cell.is_usable or cell.is_ruled_out
    ]
    below = max((p for p in positions if p < min(possible_best)), default=0.0)
    above = min((p for p in positions if p > max(possible_best)), default=1.0)
    ends = [position(cell.magnitude) for cell in result.cells if cell.magnitude != NONE]
    return optimum(evidence_of_size, (min(ends), max(ends)), (below, above))
