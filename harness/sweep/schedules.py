"""The magnitudes along the path of a trial: of its dense stage, then of its levels.

    constant          the trial's magnitude m at every level
    falling           evenly spaced from m * (1 + span) down to m * (1 - span); the mean is m
    rising            the same values, from the lowest to the highest
    shuffled          the same values in an order drawn from the seed, neither falling nor rising
    0.6, none, 0.2    (a list in YAML) one for each level; shorter paths take the first ones
    matched:FILE      the magnitude that FILE has as best for the size of each level (`tables.py`)

With every schedule, the dense stage trains at m (or at `compress.dense_magnitude`). So all
schedules of one mean start from the same dense network, and differ in their levels only.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence

from harness.errors import UserError, nearest
from harness.fields import canonical
from harness.schema import CompressConfig, Magnitude, TrialConfig
from harness.sweep.tables import best_magnitude

VARYING = ("falling", "rising", "shuffled")
NAMES = ("constant", *VARYING)
MATCHED = "matched:"


def depends_on_seed(compress: CompressConfig) -> bool:
    """Return whether the magnitudes of a trial's levels depend on its seed."""
    return compress.magnitude_schedule == "shuffled"


def kind_of(schedule: str) -> str:
    """Return `constant`, `rising`, `shuffled`, or `varying` for all that follow the sparsity.

    `rising` and `shuffled` are controls: they have the mean of `falling` and do not follow the
    sparsity.
    """
    return schedule if schedule in ("constant", "rising", "shuffled") else "varying"


def magnitudes(trial: TrialConfig, sparsities: Sequence[float]) -> tuple[Magnitude, ...]:
    """Return the magnitude of each stage: first of the dense stage, then of each level.

    Raises UserError for an unknown schedule, a list that is too short, a magnitude above 1, a
    schedule around `none`, and a table without the size.
    """
    compress, mean = trial.compress, trial.augment.magnitude
    dense = mean
    if compress.dense_magnitude is not None and sparsities:  # a dense trial keeps its magnitude
        dense = compress.dense_magnitude
    kind, number = compress.magnitude_schedule, len(sparsities)
    if kind == "constant":
        return (dense, *(mean,) * number)
    if kind.startswith(MATCHED):
        table = kind.removeprefix(MATCHED)
        return (dense, *(best_magnitude(table, trial, sparsity) for sparsity in sparsities))
    if kind not in VARYING:
        return (dense, *_listed(kind, number))
    if mean == "none":
        raise UserError(
            f"compress.magnitude_schedule: {kind} needs a number as its mean, and the magnitude is "
            "none. To leave such trials out, add under exclude: "
            "magnitude == none and schedule != 'constant'."
        )
    assert not isinstance(mean, str)
    if mean * (1 + compress.magnitude_span) > 1.0:
        raise UserError(
            f"compress.magnitude_schedule: {kind} around {mean:g} would reach "
            f"{mean * (1 + compress.magnitude_span):g}, above 1. Lower the magnitude, or "
            f"compress.magnitude_span to {1 / mean - 1:.3g} at most."
        )
    values = _falling(mean, compress.magnitude_span, number)
    if kind == "rising":
        values = values[::-1]
    elif kind == "shuffled":
        values = _shuffled(values, trial.seed)
    return (dense, *values)


def _falling(mean: float, span: float, number: int) -> tuple[float, ...]:
    """Return `number` evenly spaced values around `mean`.

    They are rounded, so that equal magnitudes give equal configs in spite of floating point.
    """
    if number < 2:
        return (mean,) * number
    steps = [1.0 - 2.0 * position / (number - 1) for position in range(number)]
    return tuple(round(mean * (1.0 + span * step), 9) for step in steps)


def _shuffled(values: tuple[float, ...], seed: int) -> tuple[float, ...]:
    """Return the values in an order that depends on the seed only.

    With three or more different values, the order is neither falling nor rising.
    """
    for attempt in itertools.count():
        keys = [
            hashlib.sha256(f"{seed}:shuffled:{attempt}:{position}".encode()).digest()
            for position in range(len(values))
        ]
        order = tuple(value for _, value in sorted(zip(keys, values, strict=True)))
        if len(set(values)) < 3 or order not in (values, values[::-1]):
            return order
    raise AssertionError


def _listed(text: str, number: int) -> tuple[Magnitude, ...]:
    """Return the first `number` magnitudes of a list."""
    words = [word.strip() for word in text.split(",")]
    try:
        values: list[Magnitude] = [w if w == "none" else canonical(float(w)) for w in words]  # type: ignore[misc]
    except ValueError:
        raise UserError(
            f"compress.magnitude_schedule: '{text}' is not a schedule"
            f"{nearest(text, (*NAMES, MATCHED + 'FILE'))}. A list such as [0.6, 0.4, 0.2] gives "
            "the magnitude of each level."
        ) from None
    if any(value != "none" and not 0.0 <= float(value) <= 1.0 for value in values):
        raise UserError(
            f"compress.magnitude_schedule: '{text}' has a magnitude outside [0, 1]: give `none` or "
            "numbers from 0 to 1."
        )
    if len(values) < number:
        raise UserError(
            f"compress.magnitude_schedule: '{text}' has {len(values)} magnitudes, and the trial "
            f"passes through {number} levels: list one for each level."
        )
    return tuple(values[:number])
