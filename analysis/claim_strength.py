"""Claim B1: strong augmentation harms the smallest model and helps the largest."""

from __future__ import annotations

import math
from dataclasses import replace

import pandas as pd

from analysis.cells import cells_per_size, difference_on_test
from analysis.claim_base import Claim, Effect, Untestable, effect_of, ruled_out_beyond, unequal_work
from analysis.claim_optimum import dense_sizes
from analysis.columns import Metric
from analysis.render import format_interval, format_value


def strength_harms_and_helps(
    rows: pd.DataFrame, columns: list[str], metric: Metric
) -> list[Effect]:
    """Return the lesser of the harm to the smallest size and the help to the largest.

    Both are changes of the test result from the weakest (`none`, if it is there) to the strongest
    magnitude that both sizes have. Both must hold (an intersection-union test).
    """
    sizes = cells_per_size(rows, columns, metric)
    if len(sizes) < 2:
        raise Untestable("it needs dense trials of at least two sizes")
    ends = sizes[0], sizes[-1]
    small, large = (size.size[columns[-1]] for size in ends)
    at_small, at_large = (
        {cell.magnitude: cell for cell in size.cells if cell.is_usable} for size in ends
    )
    shared = [magnitude for magnitude in at_small if magnitude in at_large]
    if len(shared) < 2:
        raise Untestable("its smallest and its largest size share fewer than two magnitudes")
    weak, strong = shared[0], shared[-1]
    harm = difference_on_test(at_small[weak], at_small[strong], [*at_small.values()], metric)
    gain = difference_on_test(at_large[strong], at_large[weak], [*at_large.values()], metric)
    agree = (harm.effect > 0) == (gain.effect > 0)
    changes = [
        format_interval(sign * change.effect, change.half, metric, signed=True)
        + f" at {columns[-1]} {format_value(size)}"
        for size, change, sign in ((small, harm, -1), (large, gain, 1))
    ]
    compared = f"{format_value(weak)} to {format_value(strong)}: {', '.join(changes)}"
    used = [cells[magnitude] for cells in (at_small, at_large) for magnitude in (weak, strong)]
    every_cell = (*sizes[0].cells, *sizes[-1].cells)
    doubts = ["" if agree else "both change in the same direction"]
    doubts.append(ruled_out_beyond((weak, strong), every_cell))
    if agree:  # the less certain; NaN, of one seed, is the least certain
        least = max((harm, gain), key=lambda change: (math.isnan(change.p), change.p))
    else:
        least = min((harm, gain), key=lambda change: change.effect)
    return [replace(effect_of(least, used, compared), doubt="; ".join(filter(None, doubts)))]


B1 = Claim(
    name="B1",
    statement="strong augmentation harms the smallest model and helps the largest",
    select=dense_sizes,
    test=strength_harms_and_helps,
    describe_cost=unequal_work,  # within a size, as for A1
)
