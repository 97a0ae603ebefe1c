"""Calibrate a space: change its ranges so that all ops have the same teacher loss at a magnitude.

The target loss of a magnitude is the median of the losses of the space's ops at that magnitude. So
the scale as a whole stays about as difficult, and no single op decides it. Each op is then
re-scaled: at magnitude m it takes the value at which its own loss, made monotone, equals the target
of m. An op whose loss never reaches the target takes its strongest value. An op whose loss is above
the target at every magnitude takes its weakest value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from harness.augment.ops import OPS, Kind
from harness.augment.spaces import Row, Space
from harness.errors import UserError

POINTS = 11  # values of a row: at m = 0, 0.1, ..., 1


def targets(curves: Mapping[str, Sequence[float]]) -> list[float]:
    """Return the target loss of each magnitude.

    It is the median over the ops, after the losses of each op were made monotone. curves: for each
    op its teacher loss at each magnitude.
    """
    rising = [np.maximum.accumulate(list(losses)) for losses in curves.values()]
    return [float(value) for value in np.median(np.asarray(rising), axis=0)]


def rescaled(
    losses: Sequence[float], target_losses: Sequence[float], magnitudes: Sequence[float]
) -> list[float]:
    """Return for each target loss the magnitude at which an op has that loss.

    losses: of the op, at `magnitudes`. Between measured magnitudes the loss is interpolated
    linearly. If the op has the target loss at several magnitudes, the smallest is taken. A returned
    magnitude is never below the one before it.
    """
    curve = np.maximum.accumulate(np.asarray(losses, dtype=np.float64))
    result = []
    for target in target_losses:
        first = int(np.searchsorted(curve, target, side="left"))  # first loss >= target
        if first == 0:
            result.append(float(magnitudes[0]))
        elif first == len(curve):
            result.append(float(magnitudes[-1]))
        else:
            low, high = curve[first - 1], curve[first]
            share = (target - low) / (high - low)
            step = magnitudes[first] - magnitudes[first - 1]
            result.append(float(magnitudes[first - 1] + share * step))
    return [float(value) for value in np.maximum.accumulate(result)]


def refuse_chains(space: Space) -> None:
    """Raise `UserError` for a space of chains, in which each step has its own magnitude."""
    if space.chains:
        raise UserError(
            f"{space.name} is made of chains with levels of their own, so its ops cannot be "
            "re-scaled: calibrate a space of single ops, such as randaug_strict."
        )


def calibrated(
    space: Space,
    curves: Mapping[str, Sequence[float]],
    magnitudes: Sequence[float],
    teacher: str,
) -> dict[str, Any]:
    """Return the table of the calibrated space as a dictionary that can be written as YAML.

    curves: for each op its losses at `magnitudes`. teacher: its name, for the table's `source`.

    Raises:
        UserError: a space of chains.
    """
    refuse_chains(space)
    target_losses = np.interp(np.linspace(0, 1, POINTS), magnitudes, targets(curves)).tolist()
    ops: dict[str, Any] = {}
    for row in space.rows:
        if OPS[row.op].kind == Kind.IDENTITY:
            ops[row.op] = {}
            continue
        ops[row.op] = _table_row(row, rescaled(curves[row.op], target_losses, magnitudes))
    source = f"calibrated on {teacher} from {space.name}: equal m is equal teacher loss (median op)"
    return {
        "source": source,
        "n": space.n,
        "p": space.p,
        "spread": space.spread,
        "ops": ops,
        "fill": list(space.fill),
    }


def _table_row(row: Row, magnitudes: Sequence[float]) -> dict[str, Any]:
    """Return the entry of an op in the calibrated table.

    magnitudes: for each of the POINTS new magnitudes, the magnitude of `row` that has its value.
    """
    # The first value does not change, because signs mirror the other values about it.
    row_magnitudes = [0.0, *magnitudes[1:]]
    values = np.interp(row_magnitudes, np.linspace(0, 1, len(row.values)), row.values)
    digits = 0 if OPS[row.op].whole else 6
    entry: dict[str, Any] = {"values": [round(float(value), digits) for value in values]}
    if row.signed:
        entry["signed"] = True
    if OPS[row.op].whole or row.rounding != "none":
        entry["rounding"] = row.rounding
    return entry
