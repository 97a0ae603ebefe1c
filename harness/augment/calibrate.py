"""Calibrated spaces: tables in which equal magnitude is equal teacher loss, whatever the op.

The loss that a magnitude stands for is the median over the space's ops at that magnitude, so the
whole scale is about as difficult as before, and no single op decides it. Each op's range is then
re-scaled: at magnitude m it takes the value at which its own loss, made monotone, is that of m. An
op that never gets so difficult stays at its strongest; one that is more difficult from the start
stays at its weakest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from harness.augment.ops import OPS
from harness.augment.spaces import Row, Space
from harness.errors import UserError

POINTS = 11  # values of a row: at m = 0, 0.1, ..., 1


def targets(curves: Mapping[str, Sequence[float]]) -> list[float]:
    """The loss that each magnitude stands for: the median over ops of losses that only rise."""
    rising = [np.maximum.accumulate(list(losses)) for losses in curves.values()]
    return [float(value) for value in np.median(np.asarray(rising), axis=0)]


def rescaled(
    losses: Sequence[float], wanted: Sequence[float], magnitudes: Sequence[float]
) -> list[float]:
    """For each loss in `wanted` the magnitude at which an op has it; `losses` at `magnitudes`.

    The smallest such magnitude, by straight lines between those measured; never falling.
    """
    curve = np.maximum.accumulate(np.asarray(losses, dtype=np.float64))
    found = []
    for loss in wanted:
        reached = int(np.searchsorted(curve, loss, side="left"))
        if reached == 0:
            found.append(float(magnitudes[0]))
        elif reached == len(curve):
            found.append(float(magnitudes[-1]))
        else:
            low, high = curve[reached - 1], curve[reached]
            share = (loss - low) / (high - low)
            step = magnitudes[reached] - magnitudes[reached - 1]
            found.append(float(magnitudes[reached - 1] + share * step))
    return [float(value) for value in np.maximum.accumulate(found)]


def refuse_chains(space: Space) -> None:
    """Raise UserError for a space whose magnitudes are those of its sub-policies."""
    if space.chains:
        raise UserError(
            f"{space.name} is made of chains whose levels are its own, so its ops cannot be "
            "re-scaled: calibrate a space of single ops, such as randaug_strict."
        )


def calibrated(
    space: Space,
    curves: Mapping[str, Sequence[float]],
    magnitudes: Sequence[float],
    teacher: str,
) -> dict[str, Any]:
    """The table of the calibrated space, as YAML takes it; `curves` has each op's losses.

    Raises:
        UserError: a space of chains, whose magnitudes are those of its sub-policies.
    """
    refuse_chains(space)
    wanted = np.interp(np.linspace(0, 1, POINTS), magnitudes, targets(curves))
    ops: dict[str, Any] = {}
    for row in space.rows:
        if row.op == "Identity":
            ops[row.op] = {}
            continue
        ops[row.op] = _table(row, rescaled(curves[row.op], list(wanted), magnitudes))
    source = f"calibrated on {teacher} from {space.name}: equal m is equal teacher loss (median op)"
    table = {"source": source, "n": space.n, "p": space.p, "spread": space.spread, "ops": ops}
    return {**table, "fill": list(space.fill)}


def _table(row: Row, magnitudes: Sequence[float]) -> dict[str, Any]:
    at = [0.0, *magnitudes[1:]]  # m = 0 is the weakest, and the centre that signs mirror about
    values = np.interp(at, np.linspace(0, 1, len(row.values)), row.values)
    digits = 0 if OPS[row.op].whole else 6
    entry: dict[str, Any] = {"values": [round(float(value), digits) for value in values]}
    if row.signed:
        entry["signed"] = True
    if OPS[row.op].whole or row.rounding != "none":
        entry["rounding"] = row.rounding
    return entry
