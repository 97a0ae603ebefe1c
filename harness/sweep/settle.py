"""Which trials a sweep trains next, where the best magnitude of a size is still open.

A rule `settle: {within: 0.3, seeds: [2, 10]}` trains in rounds. The choice is a pure function of
the grid and of the validation results of the trials that earlier rounds chose. So a sweep makes the
same choices whatever was interrupted, resumed, or trained before by another sweep.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from harness.fields import Frozen, PositiveInt
from harness.schema import Magnitude
from harness.sweep.grid import Trial

NONE = "none"
Metric = Literal["top1", "worst_class", "corrupted"]
CELL = ("magnitude", "seed")  # axes that do not distinguish sizes


class SettleConfig(Frozen):
    """The rule: `settle` in a grid file."""

    within: Annotated[float, Field(gt=0.0, lt=100.0)]  # points of `metric` that make no difference
    seeds: tuple[PositiveInt, PositiveInt]  # of a magnitude: in the first round, and at most
    # accuracy on validation images by which magnitudes are chosen
    metric: Metric = Field(default="top1", exclude_if=lambda metric: metric == "top1")


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

    number: int  # of the round, from 1; of the last one if every size is settled
    round: tuple[str, ...]  # ids of the round's trials, in the grid's order; some may be finished
    chosen: frozenset[str]  # ids of the trials of all rounds until now, this one included
    ruled_out: frozenset[str]  # ids of trials that the rule will not choose any more
    sizes: tuple[SizeState, ...]


FIRST_MAGNITUDES = 4  # of a size, in the first round, beside `none`
LEAST_ROUND = 4  # trials of an open size in a later round
GROWTH = 0.5  # the same, as a share of the trials that the size has
RULED_OUT = 0.01  # highest probability that one of the magnitudes that are ruled out is the best
ERRORS = 0.05  # highest probability that the choice of a settled size is not good enough


@dataclass(frozen=True)
class _Size:
    """The trials of one size: ids by magnitude, in the grid's order, as many as the rule allows."""

    values: Mapping[str, Any]
    trials: dict[Magnitude, list[str]]


@dataclass(frozen=True)
class _Verdict:
    """What the completed rounds say about one size, and the trials of its next round, if any."""

    best: Magnitude | None
    open: Sequence[Magnitude]  # may be the best
    ruled_out: Sequence[Magnitude]
    reason: str
    following: Sequence[str] = ()


def settle(
    trials: Sequence[Trial], rule: SettleConfig, results: Mapping[str, float | None]
) -> Settlement:
    """Return the first round that has a trial without a result, or the end of the sweep.

    `results` has the rule's metric on validation, a share, of each finished trial by its id; None
    for one that diverged. Results of trials that no round has chosen are not looked at. All open
    sizes have their rounds at the same time; a size is judged by its own results.
    """
    sizes = _sizes(trials, rule)
    verdicts = [_first_round(size, rule) for size in sizes]
    number, chosen = 1, set[str]()
    while True:
        newest = {trial for verdict in verdicts for trial in verdict.following}
        chosen |= newest
        if not newest or not newest <= results.keys():
            break
        of_chosen = {trial: results[trial] for trial in chosen}
        verdicts = [
            _judge(size, rule, of_chosen) if verdict.following else verdict
            for size, verdict in zip(sizes, verdicts, strict=True)
        ]
        number += any(verdict.following for verdict in verdicts)
    pairs = list(zip(sizes, verdicts, strict=True))
    undecided = {
        trial
        for size, verdict in pairs
        if verdict.following
        for ids in size.trials.values()
        for trial in ids
    }
    return Settlement(
        number,
        tuple(trial.id for trial in trials if trial.id in newest),
        frozenset(chosen),
        frozenset({trial.id for trial in trials} - chosen - undecided),
        tuple(_state(size, verdict, chosen & results.keys()) for size, verdict in pairs),
    )


def _sizes(trials: Sequence[Trial], rule: SettleConfig) -> list[_Size]:
    """Return the sizes, in the grid's order."""
    sizes: dict[str, _Size] = {}
    for trial in trials:
        values = {axis: value for axis, value in trial.cell.items() if axis not in CELL}
        size = sizes.setdefault(repr(values), _Size(values, {}))
        ids = size.trials.setdefault(trial.cell["magnitude"], [])
        if len(ids) < rule.seeds[1]:
            ids.append(trial.id)
    return list(sizes.values())


def _state(size: _Size, verdict: _Verdict, finished: Collection[str]) -> SizeState:
    is_settled = not verdict.following
    return SizeState(
        size.values,
        verdict.best,
        () if is_settled else tuple(verdict.open),
        tuple(verdict.ruled_out),
        {m: sum(trial in finished for trial in ids) for m, ids in size.trials.items()},
        is_settled,
        verdict.reason,
    )


def _first_round(size: _Size, rule: SettleConfig) -> _Verdict:
    """Return the first trials: of magnitudes that are spread evenly over those of the grid.

    `none`, the lowest and the highest are among them. A size with one magnitude, such as a control,
    has all its trials in the first round.
    """
    numbers = sorted(float(m) for m in size.trials if m != NONE)
    first, seeds = numbers, rule.seeds[0]
    if len(size.trials) == 1:
        seeds = rule.seeds[1]
    elif len(numbers) > FIRST_MAGNITUDES:
        spacing = (len(numbers) - 1) / (FIRST_MAGNITUDES - 1)
        first = [numbers[round(at * spacing)] for at in range(FIRST_MAGNITUDES)]
    following = [
        trial for m, ids in size.trials.items() if m in (NONE, *first) for trial in ids[:seeds]
    ]
    return _Verdict(None, list(size.trials), [], "its first round is not finished", following)


@dataclass(frozen=True)
class _View:
    """What the results of a size say about its best magnitude.

    `shares` has the magnitudes that may be the best, with the shares of the size's seeds that they
    should have. `doubt` says why `best` is not good enough; it is empty where it is.
    """

    best: Magnitude | None
    shares: Mapping[Magnitude, float]
    least_seeds: int  # with which each of these magnitudes is trained before the size is settled
    doubt: str


def _judge(size: _Size, rule: SettleConfig, by_trial: Mapping[str, float | None]) -> _Verdict:
    """Return the verdict on a size from the results of its trials."""
    results = {m: [by_trial[t] for t in ids if t in by_trial] for m, ids in size.trials.items()}
    scores = {m: [r for r in of_m if r is not None] for m, of_m in results.items()}
    left = {m: len(ids) - len(results[m]) for m, ids in size.trials.items()}
    diverged = {m: len(results[m]) - len(scores[m]) for m in results}
    lost = [m for m in results if diverged[m] > 1 or not (scores[m] or left[m])]
    candidates = [m for m in results if m not in lost]
    if len(results) == 1 or not candidates:
        reason = "it has one magnitude" if candidates else "every magnitude diverged"
        return _Verdict(candidates[0] if candidates else None, [], lost, reason)
    sound = [m for m in candidates if scores[m] and not diverged[m]]
    view = _view({m: scores[m] for m in candidates}, sound, rule)
    following: list[Magnitude] = []
    for m in view.shares:
        least = max(view.least_seeds, 2 * diverged[m])  # one diverged seed does not decide
        following += [m] * min(least - len(results[m]), left[m])
    if view.doubt:
        count = max(LEAST_ROUND, math.ceil(GROWTH * sum(map(len, results.values()))))
        following += _apportion(view.shares, results, left, following, count)
    ruled_out = [m for m in results if m not in view.shares]
    if following:
        doubt = view.doubt or f"{_names(following)} may be the best, with too few seeds to tell"
        ids = [t for m in results for t in size.trials[m][len(results[m]) :][: following.count(m)]]
        return _Verdict(view.best, list(view.shares), ruled_out, doubt, ids)
    if view.doubt:
        reason = f"its seeds are used up, and {view.doubt}"
    else:
        reason = (
            f"no other is better than magnitude {view.best} by more than {rule.within:g} points"
        )
        if not ruled_out:
            reason = f"no difference beyond {rule.within:g} points is found: {reason}"
    return _Verdict(view.best, list(view.shares), ruled_out, reason)


def _apportion(
    shares: Mapping[Magnitude, float],
    results: Mapping[Magnitude, Sequence[float | None]],
    left: Mapping[Magnitude, int],
    following: Sequence[Magnitude],
    count: int,
) -> list[Magnitude]:
    """Return the magnitudes of further seeds, until a round has `count` trials or none is left.

    All seeds of a size, old and new, come as close to the shares as they can: each seed goes to the
    magnitude with the highest share / (its seeds + 1), as D'Hondt's method gives seats to parties.
    """
    added: list[Magnitude] = []
    while len(following) + len(added) < count:
        new = {m: following.count(m) + added.count(m) for m in shares}
        possible = [m for m in shares if new[m] < left[m]]
        if not possible:
            break
        added.append(max(possible, key=lambda m: shares[m] / (len(results[m]) + new[m] + 1)))
    return added


def _view(
    scores: Mapping[Magnitude, Sequence[float]], sound: Sequence[Magnitude], rule: SettleConfig
) -> _View:
    """Return what the scores of the candidates say; a `sound` one has results and none diverged.

    The best is that of tables (`harness.statistics.choose`). The posterior is that of smooth curves
    (`harness.statistics.loss`), `none` apart. The means themselves must not contradict it.
    """
    from harness import statistics as stats  # imports SciPy, which grids without a rule do not need

    trained = {m: of_m for m, of_m in scores.items() if of_m}
    means = {m: stats.mean(of_m) for m, of_m in trained.items()}
    highest = max(sound, key=means.__getitem__, default=None)
    if len(scores) == 1 and highest is not None:  # trainings diverged at all others
        return _View(highest, {highest: 1.0}, rule.seeds[0], "")
    best = _best({m: scores[m] for m in sound}) if sound else None
    noise = stats.spreads(trained)
    freedom = min((spread.freedom for spread in noise.values()), default=0.0)
    if not freedom:
        # second seeds come before further magnitudes
        shares = {m: 1.0 if m in trained else 0.1 for m in scores}
        return _View(best, shares, 0, "its noise is not known")
    # `none` without a result has no place in the posterior; a second seed of it follows
    placed = [m for m in scores if m != NONE or m in trained]
    positions: list[float | None] = [None if m == NONE else float(m) for m in placed]
    if len(placed) == 2:  # then it only matters that they differ
        positions = [0.0, 1.0]
    at_curve = [m for m, at in zip(placed, positions, strict=True) if at is not None]
    too_few = sum(m in trained for m in at_curve) < min(max(len(at_curve), 2), 3)
    if best is None or highest is None or too_few:
        doubt = "too many of its trainings diverged"
        return _View(best, dict.fromkeys(scores, 1.0), rule.seeds[0], doubt)
    posterior = stats.losses(
        positions,
        [means.get(m, math.nan) for m in placed],
        [
            noise[m].deviation / math.sqrt(len(trained[m])) if m in trained else math.nan
            for m in placed
        ],
        freedom,
    )
    # rounded, so that equal shares are equal on every machine, and the grid's order decides
    shares = dict.fromkeys(scores, 1.0) | dict(zip(placed, posterior.best.round(6), strict=True))
    least = RULED_OUT / len(scores)
    shares = {m: share for m, share in shares.items() if share >= least or m == best}
    doubt = ""
    exceeds = posterior.exceeds(placed.index(best), rule.within / 100)
    if exceeds > ERRORS:
        doubt = (
            f"magnitude {best} is worse than the best by more than {rule.within:g} points "
            f"with a probability of {exceeds:.0%}"
        )
    expected = dict(zip(placed, posterior.mean, strict=True))
    smooth = min(sound, key=expected.__getitem__)
    if means[highest] > means[smooth] + rule.within / 100:
        # no curve of the family is right, or luck; more seeds of both tell
        shares = {m: shares.get(m, 0.0) for m in scores if m in shares or m in (highest, smooth)}
        shares |= {smooth: 1.0, highest: 1.0}
        doubt = (
            f"magnitude {highest} did better than magnitude {smooth}, which the smooth curve takes "
            "for the best"
        )
    return _View(best, shares, rule.seeds[0], doubt)


def _best(cells: Mapping[Magnitude, Sequence[float]]) -> Magnitude:
    """Return the magnitude that a table of these results names as the best."""
    from harness import statistics as stats

    places = {m: None if m == NONE else float(m) for m in cells}
    return stats.choose(cells, places, stats.spreads(cells))


def _names(magnitudes: Sequence[Magnitude]) -> str:
    distinct = dict.fromkeys(magnitudes)
    return f"magnitude{'s' * (len(distinct) > 1)} {' and '.join(map(str, distinct))}"
