"""What the captions of figures say: how to read the marks, and what was trained, for how long."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import pandas as pd

from analysis.best import SizeResult, seed_counts
from analysis.cells import LENGTHS
from analysis.claim_base import TOLERANCE
from analysis.drawing import MOST_NAMES
from analysis.provenance import setting
from analysis.render import format_range, format_seeds

INTERVALS = "95 % t intervals over seeds, not over other test sets"
OPTIMUM = (
    "Open circle: the chosen magnitude; dashes: those that are statistically "
    "indistinguishable from it. Filled mark and bar: where a smooth curve through the validation "
    "means is highest, with its 95 % interval; arrow: the interval ends with the grid. none is not "
    "on that curve: where it is chosen, the curve's maximum is not the best and is not drawn."
)
CAPTIONS = {
    "accuracy_against_magnitude": "Mean test result against magnitude; none: no augmentation, "
    f"beside the scale. Bands and bars: {INTERVALS}, with the standard deviation pooled over the "
    "magnitudes of a size; dots: seeds. Open circle: the magnitude that validation chose; the "
    "test result took no part in the choice.",
    "change_against_none": "Mean test result against magnitude, minus that of the same size "
    f"without augmentation. Bands and bars: {INTERVALS}, of the difference; dots: seeds minus the "
    "mean of none. Open circle: the magnitude that validation chose, where it is not none.",
    "optimum_against_params": "Magnitudes that are best on validation, against the number of "
    f"non-zero parameters. {OPTIMUM}",
    "optimum_against_epochs": "Magnitudes that are best on validation, against the length of "
    f"training; lines connect the optima of one size. {OPTIMUM}",
    "heat_map": "Mean test result minus that of the magnitude that validation chose. Wide frame "
    "or large dot: the chosen magnitude; narrow frames or small dots: magnitudes that are "
    "statistically indistinguishable from it on validation.",
    "accuracy_against_sparsity": "Mean test result against sparsity, each at the magnitude that "
    f"validation chose for it; the axis is logarithmic in compression. Bars: {INTERVALS}; dots: "
    "seeds. Dashed line: the dense model; cross: the dense model, trained as long as the models of "
    "that sparsity.",
    "difficulty_against_accuracy": "Mean test result against the loss of a teacher on the "
    f"augmented images. Bars: {INTERVALS}; dots: seeds; rho: Spearman's rank correlation of the "
    "means.",
}
"""How to read each figure."""


def captions(
    frame: pd.DataFrame, results: Sequence[SizeResult], names: Iterable[str]
) -> dict[str, str]:
    """Return the caption of each figure: how to read it, and what was trained."""
    trained = subject(frame, results)
    if len(results) > MOST_NAMES:
        trained = f"Of many sizes, a legend names some; larger numbers are darker. {trained}"
    return {name: f"{CAPTIONS[name]} {trained}" for name in names}


def subject(frame: pd.DataFrame, results: Sequence[SizeResult]) -> str:
    """Return what was trained, for how long and with how many seeds, as a sentence."""
    parts = [part for part in (setting(frame), _seeds(results)) if part]
    return f"Trained: {'; '.join(parts)}."


def _seeds(results: Sequence[SizeResult]) -> str:
    counts = seed_counts(results)
    return f"{format_seeds(counts)} per cell" if counts else "no finished trial"


def with_lengths(results: Sequence[SizeResult]) -> list[SizeResult]:
    """Return the results; if sizes were trained for different lengths, with it in their `size`.

    The length is a value of `epochs`, or else of `examples`, along the path of a trial.
    """
    for name in LENGTHS:
        ends = [end for result in results for end in result.ranges.get(name, ())]
        if ends and max(ends) > (1 + TOLERANCE) * min(ends) and name not in results[0].size:
            return [
                replace(
                    r,
                    size={
                        **r.size,
                        name: format_range(*r.ranges[name]) if name in r.ranges else "-",
                    },
                )
                for r in results
            ]
        if ends:
            break
    return list(results)
