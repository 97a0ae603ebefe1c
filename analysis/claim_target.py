"""Claim R: the best magnitude for corrupted images is higher than that for clean images."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from analysis.best import optimum_evidence, position
from analysis.cells import MODEL_SIZES, Cell, cells_per_size, size_columns
from analysis.claim_base import Claim, Effect, Selection, Untestable, effect_of
from analysis.claim_optimum import drift_estimate
from analysis.columns import METRICS, TOP1, Metric
from analysis.render import counted
from harness.statistics import FEWEST_MAGNITUDES, NO_ESTIMATE

CORRUPTED = METRICS["corrupted"]
NEEDED = f"val_{CORRUPTED.name}"
"""The column without which the claim does not concern a sweep."""
MOST_SIZES = 250  # each takes some 4 ms


def _evaluated(frame: pd.DataFrame, by: Sequence[str] | None) -> Selection:
    """Select the trials that were evaluated on corrupted images or have no result.

    The columns are the sizes that are compared with themselves; data sets, families and policies
    are groups.
    """
    if NEEDED not in frame.columns or frame[NEEDED].isna().all():
        raise Untestable("no result is evaluated on corrupted images: see harness.evaluate")
    rows = frame[frame[NEEDED].notna() | (frame["state"] != "done")]
    names = size_columns(frame, by)
    return rows, [n for n in names if rows[n].dtype.kind in "if" or n in MODEL_SIZES]


def _difference_of_optima(rows: pd.DataFrame, columns: list[str], _: Metric) -> list[Effect]:
    """Return the mean over sizes of the best magnitude on corrupted minus that on clean images.

    Both are optima of smooth curves through validation means of the same runs. The posterior takes
    their errors for independent. They share the luck of the runs, so their true difference is more
    certain than that. As strata of A1, sizes share draws, and p is no smaller than that of one size
    with the mean difference.
    """
    pairs: list[tuple[list[Cell], list[Cell]]] = []
    clean, corrupted = (cells_per_size(rows, columns, metric) for metric in (TOP1, CORRUPTED))
    for first, second in zip(clean, corrupted, strict=True):
        usable = [[cell for cell in size.cells if cell.is_usable] for size in (first, second)]
        if len({position(cell.magnitude) for cell in usable[0]}) >= FEWEST_MAGNITUDES:
            pairs.append((usable[0], usable[1]))
    if not pairs:
        raise Untestable(f"it needs a size with {FEWEST_MAGNITUDES} magnitudes that are done")
    if len(pairs) > MOST_SIZES:
        raise Untestable(f"it takes {MOST_SIZES} sizes, not {len(pairs)}: select some with where=")
    logs = [
        (log, other)
        for of_clean, of_corrupted in pairs
        if (log := optimum_evidence(of_clean, TOP1)) is not None
        and (other := optimum_evidence(of_corrupted, CORRUPTED)) is not None
    ]
    cells = [cell for of_clean, _ in pairs for cell in of_clean]
    magnitudes = len({cell.magnitude for cell in cells})
    compared = (
        "best magnitude on corrupted minus that on clean images "
        f"({counted(len(logs) or len(pairs), 'size')}, {counted(magnitudes, 'magnitude')})"
    )
    if not logs:  # one seed
        return [effect_of(NO_ESTIMATE, cells, compared)]
    estimate = drift_estimate(
        [log for pair in logs for log in pair], [-0.5, 0.5] * len(logs), [0, 1] * len(logs), 1
    )
    return [effect_of(estimate, cells, compared)]


R = Claim(
    name="R",
    statement="the best magnitude for corrupted images is higher than for clean ones",
    unit="drift",
    select=_evaluated,
    test=_difference_of_optima,
    check_budget=lambda rows, columns: "",  # both are of the same runs
    describe_cost=lambda rows, columns: "",
)
