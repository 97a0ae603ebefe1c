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
    sizes: dict[str, list[Trial]] = {}
    for trial in trials:
        cell = {k: v for k, v in trial.cell.items() if k not in ("magnitude", "seed")}
        sizes.setdefault(repr(cell), []).append(trial)
    seeds = list(dict.fromkeys(t.cell["seed"] for t in trials))
    active = {
        key: list(dict.fromkeys(t.cell["magnitude"] for t in ts)) for key, ts in sizes.items()
    }
    done: dict[str, bool] = dict.fromkeys(sizes, False)
    chosen: set[str] = set()
    count, number = rule.seeds[0], 1
    while True:
        new = [
            t
            for key, ts in sizes.items()
            for t in ts
            if not done[key]
            and t.cell["magnitude"] in active[key]
            and t.cell["seed"] in seeds[:count]
            and t.id not in chosen
        ]
        chosen |= {t.id for t in new}
        if any(t.id not in results for t in new) or not new:
            break
        for key, ts in sizes.items():
            means = {}
            for m in active[key]:
                values = [
                    results[t.id] or 0.0 for t in ts if t.id in chosen and t.cell["magnitude"] == m
                ]
                means[m] = sum(values) / len(values)
            best = max(means.values())
            active[key] = [m for m in active[key] if 100 * (best - means[m]) <= rule.within]
            done[key] = len(active[key]) == 1 or count >= rule.seeds[1]
        count, number = count + 1, number + 1
    order = {t.id: i for i, t in enumerate(trials)}
    ids = {t.id for t in new}
    ruled = {
        t.id
        for key, ts in sizes.items()
        for t in ts
        if t.id not in chosen and (done[key] or t.cell["magnitude"] not in active[key])
    }
    states = []
    for key, ts in sizes.items():
        cell = {k: v for k, v in ts[0].cell.items() if k not in ("magnitude", "seed")}
        every = list(dict.fromkeys(t.cell["magnitude"] for t in ts))
        counts = {
            m: sum(t.id in chosen and t.id in results for t in ts if t.cell["magnitude"] == m)
            for m in every
        }
        states.append(
            SizeState(
                cell,
                active[key][0],
                tuple(active[key]),
                tuple(m for m in every if m not in active[key]),
                counts,
                done[key],
                "it is the best" if done[key] else "more seeds may tell",
            )
        )
    return Settlement(
        number,
        tuple(sorted(ids, key=order.__getitem__)),
        frozenset(chosen),
        frozenset(ruled),
        tuple(states),
    )
