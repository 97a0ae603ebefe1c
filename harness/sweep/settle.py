"""Which trials a sweep trains next, where the best magnitude of a size is still open.

A rule `settle: {within: 0.3, seeds: [2, 10]}` trains in rounds. The choice is a pure function of
the grid and of the validation results of the trials that earlier rounds chose. So a sweep makes the
same choices whatever was interrupted, resumed, or trained before by another sweep.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from harness.fields import Frozen, PositiveInt
from harness.schema import Magnitude
from harness.sweep.grid import Trial


class SettleConfig(Frozen):
    """The rule: `settle` in a grid file."""

    within: Annotated[float, Field(gt=0.0, lt=100.0)]  # points of top-1 that make no difference
    seeds: tuple[PositiveInt, PositiveInt]  # of a magnitude: in the first round, and at most


@dataclass(frozen=True)
class SizeState:
    """What is known about the best magnitude of one size (all axes but magnitude and seed)."""

    size: Mapping[str, Any]  # value by axis
    best: Magnitude | None  # None before the first results
    open: tuple[Magnitude, ...]  # candidates that still need seeds
    ruled_out: tuple[Magnitude, ...]  # candidates that are worse than the best
    seeds: Mapping[Magnitude, int]  # completed trials of the rounds so far
    is_settled: bool  # no further trial of this size will be chosen
    reason: str  # why it is settled, or why not yet; a clause for users


@dataclass(frozen=True)
class Settlement:
    """The state of a sweep that settles. `round` is empty when every size is settled."""

    number: int  # of the round, from 1
    round: tuple[str, ...]  # ids of the round's trials, in the grid's order; some may be finished
    chosen: frozenset[str]  # ids of the trials of all rounds until now, this one included
    ruled_out: frozenset[str]  # ids of trials that the rule will not choose any more
    sizes: tuple[SizeState, ...]


def settle(
    trials: Sequence[Trial], rule: SettleConfig, results: Mapping[str, float | None]
) -> Settlement:
    """Return the first round that has a trial without a result, or the end of the sweep.

    `results` has the validation top-1, a share, of each finished trial by its id; None for one that
    diverged. Results of trials that no round has chosen are not looked at.
    """
    raise NotImplementedError
