"""Measures how often tables and claims are right, on simulated sweeps whose truth is known.

python benchmarks/verdicts.py                    # 500 sweeps of every scenario, some 20 minutes
python benchmarks/verdicts.py sweeps=100 only=kink
python benchmarks/verdicts.py tradeoff=true      # verdicts of A1 and A2 at other levels than 5 %

A scenario is a truth: curves of accuracy over magnitude for each size, the noise of each cell, and
what is measured on the sweeps that are drawn from it. Noise is 0.2 points and a cell has 3 seeds
unless the scenario says otherwise. Validation and test share 90 % of the variance of a run, as they
do in trained sweeps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from curves import M8, R5, Curve, Noise, flat, kink, luck_of_run, parabola, shifting

from analysis.best import best_per_size, position
from analysis.claims import claims
from analysis.columns import NONE
from harness.arguments import Option, parse_options
from harness.errors import command
from harness.statistics import Optimum

OPTIONS = {
    "sweeps": Option(int, default=500, low=1),
    "only": Option(default=""),
    "tradeoff": Option(bool, default=False),
}
SHARED = 0.9  # share of the variance of a run that validation and test have in common
Measure = Callable[["Scenario", pd.DataFrame], bool]
Draw = Callable[["Scenario", np.random.Generator], pd.DataFrame]  # returns the rows of a sweep


@dataclass(frozen=True)
class Scenario:
    """A truth, how sweeps are drawn from it, and in how many of them the measure should hold."""

    name: str
    curve: Curve
    measures: dict[str, tuple[Measure, float]]  # share of sweeps: at least, or at most if negative
    arms: Sequence[dict[str, Any]] = ({"width": 1.0},)
    magnitudes: Sequence[float | str] = M8
    noise: Noise = lambda size, magnitude: 0.2
    seeds: Callable[[int, float], int] = lambda size, magnitude: 3
    tails: bool = False  # Student's t with 3 degrees of freedom
    diverged: float = 0.0  # share of runs
    offsets: float = 0.0  # standard deviation of what an arm gains or loses everywhere, points
    correlation: float = 0.0  # of runs of one width, magnitude and seed, over the other arms
    absent: Callable[[int, float], bool] = lambda size, magnitude: False
    optimum: float = 0.3  # the true best magnitude, where there is one
    columns: Callable[[int, float], dict[str, Any]] = field(default=lambda size, magnitude: {})


def sweep(scenario: Scenario, chance: np.random.Generator) -> pd.DataFrame:
    """Return the rows of a sweep that is drawn from the scenario."""
    rows = []
    luck_of: dict[tuple[float, float, int], float] = {}
    for size, arm in enumerate(scenario.arms):
        offset = scenario.offsets * chance.standard_normal() if scenario.offsets else 0.0
        for magnitude in scenario.magnitudes:
            place = position(magnitude)
            if scenario.absent(size, place):
                continue
            for seed in range(scenario.seeds(size, place)):
                key = (arm.get("width", 1.0), place, seed)
                common = luck_of.setdefault(key, luck_of_run(chance, scenario.tails))
                own = luck_of_run(chance, scenario.tails)
                rho = scenario.correlation
                luck = math.sqrt(SHARED) * (math.sqrt(rho) * common + math.sqrt(1 - rho) * own)
                val, test = (
                    0.9
                    + (
                        scenario.curve(size, place)
                        + offset
                        + scenario.noise(size, place)
                        * (luck + math.sqrt(1 - SHARED) * luck_of_run(chance, scenario.tails))
                    )
                    / 100
                    for _ in range(2)
                )
                is_done = chance.random() >= scenario.diverged
                rows.append(
                    {
                        "epochs": 10,
                        **arm,
                        **scenario.columns(size, place),
                        "magnitude": magnitude,
                        "seed": seed,
                        "state": "done" if is_done else "diverged",
                        "val_top1": val if is_done else math.nan,
                        "test_top1": test if is_done else math.nan,
                    }
                )
    frame = pd.DataFrame(rows)
    return frame.assign(magnitude=frame["magnitude"].astype(object))


# --- what is measured ---------------------------------------------------------------------------


def ties_hold_the_best(scenario: Scenario, rows: pd.DataFrame) -> bool:
    """Whether the true best magnitude is among the ties or open."""
    (size,) = best_per_size(rows, optima=False)
    return scenario.optimum in {*size.ties, *size.open}


def interval_holds_the_optimum(scenario: Scenario, rows: pd.DataFrame) -> bool:
    """Whether the optimum's interval, where there is one, holds the truth."""
    (size,) = best_per_size(rows)
    return _holds(size.optimum, scenario.optimum)


def interval_holds_best_and_ties(_scenario: Scenario, rows: pd.DataFrame) -> bool:
    """Whether the optimum's interval holds the best magnitude and its ties, as printed."""
    (size,) = best_per_size(rows)
    return all(_holds(size.optimum, position(magnitude)) for magnitude in size.ties)


def _holds(optimum: Optimum | None, place: float) -> bool:
    """Whether the interval holds a magnitude; one that is cut off goes on beyond the grid.

    There is none where too few magnitudes are without a diverged seed.
    """
    if optimum is None:
        return True
    below, above = optimum.censored
    return (below or optimum.low <= place + 1e-9) and (above or place <= optimum.high + 1e-9)


def test_interval_holds(scenario: Scenario, rows: pd.DataFrame) -> bool:
    """Whether `test` with its interval holds the true accuracy of the magnitude that was chosen."""
    (size,) = best_per_size(rows, optima=False)
    assert size.best is not None
    truth = 0.9 + scenario.curve(0, position(size.best.magnitude)) / 100
    return abs(size.test - truth) <= size.test_half


def gain_interval_holds(scenario: Scenario, rows: pd.DataFrame) -> bool:
    """Whether `gain` with its interval holds the true gain of the magnitude that was chosen."""
    (size,) = best_per_size(rows, optima=False)
    assert size.best is not None
    if size.best is size.none:
        return True
    truth = (scenario.curve(0, position(size.best.magnitude)) - scenario.curve(0, 0.0)) / 100
    return abs(size.gain - truth) <= size.gain_half


def best_has_fewer_seeds(_scenario: Scenario, rows: pd.DataFrame) -> bool:
    """Whether the best magnitude has fewer seeds than others."""
    (size,) = best_per_size(rows, optima=False)
    assert size.best is not None
    return len(size.best.val) < max(len(cell.val) for cell in size.cells)


def verdict(claim: str, *verdicts: str) -> Measure:
    """Return the measure whether the claim has one of these verdicts."""

    def measure(_scenario: Scenario, rows: pd.DataFrame) -> bool:
        return any(result.verdict in verdicts for result in claims(rows, names=[claim]))

    return measure


def rarely_decided(claim: str) -> dict[str, tuple[Measure, float]]:
    """Return the measure of false verdicts, of which there should be at most 5 %."""
    return {f"{claim} decided": (verdict(claim, "supported", "contradicted"), -0.05)}


def found(claim: str, share: float = 0.9, how: str = "supported") -> dict[str, Any]:
    """Return the measure of power."""
    return {f"{claim} {how}": (verdict(claim, how), share)}


# --- the scenarios ------------------------------------------------------------------------------

WIDTHS = [{"width": float(2**at)} for at in range(4)]
SPARSITIES = [{"width": 1.0, "sparsity": share} for share in (0.0, 0.5, 0.8, 0.95)]


def of_one_size() -> Iterator[Scenario]:
    """Yield the scenarios of a single size: ties, intervals and the optimum."""
    low = (0.5,)
    deep = (2.0,)
    ties = {
        "ties hold the best": (ties_hold_the_best, 0.93),
        "optimum's interval holds it": (interval_holds_the_optimum, 0.9),
        "interval holds best and ties": (interval_holds_best_and_ties, 1.0),
    }
    after = {
        "test ± holds": (test_interval_holds, 0.93),
        "gain ± holds": (gain_interval_holds, 0.93),
    }
    with_none = (NONE, *M8[1:])
    shallow, peaked = parabola(low, low, 0.3), parabola(deep, deep, 0.3)
    rising_noise: Noise = lambda _, m: 0.2 * (1 + 6 * m / 0.7)  # noqa: E731
    uneven: Callable[[int, float], int] = lambda _, m: (2, 5, 3, 2, 6, 3, 2, 4)[round(10 * m)]  # noqa: E731
    yield Scenario("flat", flat, {**ties, **after}, magnitudes=with_none)
    yield Scenario("peaked", peaked, {**ties, **after}, magnitudes=with_none)
    yield Scenario("end of grid", parabola(deep, deep, 0.7), ties, optimum=0.7)
    yield Scenario("noise 1 to 7x", shallow, {**ties, **after}, noise=rising_noise,
                   magnitudes=with_none)  # fmt: skip
    yield Scenario("noise 7 to 1x", shallow, ties, noise=lambda _, m: rising_noise(0, 0.7 - m))
    yield Scenario("t3 tails", shallow, {**ties, **after}, tails=True, magnitudes=with_none)
    yield Scenario("unbalanced", shallow, ties, seeds=uneven)
    yield Scenario("half of the magnitudes with 3 seeds of 6", flat,
                   {"best has fewer seeds": (best_has_fewer_seeds, -0.5)},
                   seeds=lambda _, m: 3 if m < 0.35 else 6)  # fmt: skip
    yield Scenario("10 % diverged", shallow, ties, diverged=0.1)
    yield Scenario("10 % diverged, 10 seeds", shallow, ties, diverged=0.1, seeds=lambda *_: 10)
    shape = {name: ties[name] for name in list(ties)[1:]}
    yield Scenario("collapse at the top", lambda s, m: shallow(s, m) - 30 * (m > 0.65), shape)
    yield Scenario("kink, 6x steeper above", kink(low, (3.0,), 0.3), shape)
    yield Scenario("kink, 6x steeper below", kink((3.0,), low, 0.3), shape)
    yield Scenario("cliff above the optimum", lambda s, m: m - 5 * (m > 0.35), shape)
    yield Scenario("asymmetric", parabola(low, (3.0,), 0.3), shape)


def of_drift() -> Iterator[Scenario]:
    """Yield the scenarios of A1 and A2: optima that stay, and optima that move."""
    fall, rise = (2.0, 1.5, 1.0, 0.5), (0.5, 1.0, 1.5, 2.0)
    equal = (1.0, 1.0, 1.0, 1.0)
    for grid, magnitudes, top in (("M8", M8, 0.3), ("R5", R5, 0.25)):
        stays = {
            "flat": flat,
            "curvature 4 to 1": parabola(fall, fall, top),
            "asymmetric, strong harms small": parabola(rise, fall, top),
            "asymmetric, weak harms small": parabola(fall, rise, top),
            "largest nearly flat": parabola((2, 2, 2, 0.1), (2, 2, 2, 0.1), top),
            "kink": kink((0.4, 0.8, 1.3, 2.0), (2.0, 1.3, 0.8, 0.4), top),
        }
        for name, curve in stays.items():
            yield Scenario(f"{name}, {grid}", curve, rarely_decided("A1"), WIDTHS, magnitudes)
        yield Scenario(f"grids cut at 0.3, {grid}", parabola(equal, equal, 0.5),
                       rarely_decided("A1"), WIDTHS, magnitudes,
                       absent=lambda size, m: size < 2 and m > 0.3)  # fmt: skip
        yield Scenario(f"noise rising with magnitude, {grid}", parabola(fall, fall, top),
                       rarely_decided("A1"), WIDTHS, magnitudes,
                       noise=lambda _, m: 0.2 * (1 + 4 * m))  # fmt: skip
        for name in ("flat", "asymmetric, strong harms small"):
            yield Scenario(f"{name}, correlated levels, {grid}", stays[name],
                           rarely_decided("A2"), SPARSITIES, magnitudes,
                           correlation=0.7)  # fmt: skip
    many = {"seeds": lambda size, magnitude: 10}
    yield Scenario("asymmetric, strong harms small, 10 seeds, M8", parabola(rise, fall, 0.3),
                   rarely_decided("A1"), WIDTHS, M8, **many)  # fmt: skip
    steps = (0.2, 0.3, 0.4, 0.5)
    yield Scenario("a step per size, M8", shifting(0.5, steps), found("A1"), WIDTHS, M8)
    yield Scenario(
        "a step per size, twice as deep, M8", shifting(1, steps), found("A1"), WIDTHS, M8
    )
    yield Scenario("a step per size, R5", shifting(0.5, (0.1, 0.25, 0.4, 0.6)), found("A1"),
                   WIDTHS, R5)  # fmt: skip
    yield Scenario("optima none, 0.1, 0.25, 0.4", shifting(0.5, (0, 0.1, 0.25, 0.4)),
                   found("A1", 0.8), WIDTHS, R5)  # fmt: skip
    yield Scenario("a step down per level, M8", shifting(0.5, steps[::-1]), found("A2"),
                   SPARSITIES, M8)  # fmt: skip
    yield Scenario("a step down per level, correlated, M8", shifting(0.5, steps[::-1]),
                   found("A2"), SPARSITIES, M8, correlation=0.7)  # fmt: skip


def of_lengths() -> Iterator[Scenario]:
    """Yield the scenarios of L, and of A1 at several lengths.

    L at one size is the same test as A1 at one length, so here are several of both.
    Correlated runs of a size share luck over the lengths, as those of one trunk may do.
    """
    lengths = [{"width": w, "epochs": e} for w in (1.0, 2.0) for e in (10, 20, 40, 80)]
    widths = [{"width": 2.0**at, "epochs": e} for e in (10, 40) for at in range(4)]
    fall, rise = (2.0, 1.5, 1.0, 0.5) * 2, (0.5, 1.0, 1.5, 2.0) * 2
    steps = shifting(0.5, (0.2, 0.3, 0.4, 0.5) * 2)
    for grid, magnitudes, top in (("M8", M8, 0.3), ("R5", R5, 0.25)):
        below, above = (0.4, 0.8, 1.3, 2.0) * 2, (2.0, 1.3, 0.8, 0.4) * 2
        stays = {
            "curvature falls with length": parabola(fall, fall, top),
            "asymmetric, strong harms short trainings": parabola(rise, fall, top),
            "kink, steeper above in short trainings": kink(below, above, top),
        }
        for name, curve in stays.items():
            yield Scenario(f"{name}, 2 sizes, {grid}", curve, rarely_decided("L"), lengths,
                           magnitudes)  # fmt: skip
        yield Scenario(f"asymmetric, strong harms small, 2 correlated lengths, {grid}",
                       parabola(rise, fall, top), rarely_decided("A1"), widths, magnitudes,
                       correlation=0.7)  # fmt: skip
    yield Scenario("a step per length, 2 sizes, M8", steps,
                   found("L") | rarely_decided("A1"), lengths, M8)  # fmt: skip
    yield Scenario("a step per size, 2 correlated lengths, M8", steps,
                   found("A1", 0.8) | rarely_decided("L"), widths, M8, correlation=0.7)  # fmt: skip


def of_arms() -> Iterator[Scenario]:
    """Yield the scenarios of A3, B1, B2 and C1."""
    two = [{"width": 1.0}, {"width": 8.0}]
    yield Scenario("no effect of strength", flat, rarely_decided("B1"), WIDTHS, R5)
    yield Scenario("strength harms all sizes", lambda s, m: -m, rarely_decided("B1"), two, R5)
    yield Scenario("strength harms small, helps large", lambda s, m: (1.5 * s - 0.75) * m / 0.8,
                   found("B1", 0.8), two, R5)  # fmt: skip
    schedules = [{"schedule": name} for name in ("constant", "falling", "matched: a", "matched: b")]
    arms = (0.1, 0.3, 0.5)
    yield Scenario("schedules do nothing", flat, rarely_decided("A3"), schedules[:2], arms)
    yield Scenario("one schedule, six constants", flat, rarely_decided("A3"), schedules[:2],
                   M8[:6], absent=lambda size, m: size == 1 and m > 0.05)  # fmt: skip
    yield Scenario("peaked constants, equal schedules",
                   lambda s, m: 0.0 if s else -10 * abs(m - 0.3), rarely_decided("A3"),
                   schedules[:2], arms)  # fmt: skip
    yield Scenario("a schedule gains a point", lambda s, m: float(s), found("A3"), schedules[:2],
                   arms)  # fmt: skip
    forms = [{"surplus": name} for name in (NONE, "slice")]
    harmed = {(0, True): -2.0, (0, False): 0.0, (1, True): 0.0, (1, False): 0.0}
    ends = (NONE, 0.6)
    yield Scenario("a form takes 2 points of harm away", lambda s, m: harmed[s, m > 0],
                   found("B2"), forms, ends)  # fmt: skip
    yield Scenario("a form does nothing", lambda s, m: -2.0 * (m > 0), rarely_decided("B2"), forms,
                   ends)  # fmt: skip
    yield Scenario("a form 5 points worse everywhere",
                   lambda s, m: -5.0 if s else -2.0 * (m > 0), rarely_decided("B2"), forms,
                   ends)  # fmt: skip
    policies = [{"policy": name} for name in "abcdefgh"]
    for name, slope in (("harms", -2.0), ("helps", 2.0)):
        yield Scenario(f"difficulty is mere magnitude, strength {name}",
                       lambda s, m, slope=slope: slope * m, rarely_decided("C1"), policies, M8[1:],
                       columns=_mere_magnitude)  # fmt: skip
    yield Scenario("policies differ in more than difficulty", lambda s, m: -2.0 * m,
                   rarely_decided("C1"), policies, M8[1:], offsets=0.5,
                   columns=lambda s, m: {"difficulty": 0.4 + m + 0.1 * s})  # fmt: skip
    yield Scenario("difficulty lowers accuracy at equal magnitude", lambda s, m: -m - 0.5 * s,
                   found("C1"), policies, M8[1:],
                   columns=lambda s, m: {"difficulty": 0.4 + m + 0.1 * s})  # fmt: skip


def _mere_magnitude(size: int, magnitude: float) -> dict[str, float]:
    """Return a difficulty that depends on magnitude, and on nothing else that changes accuracy."""
    wobble = math.sin(12.9898 * size + 78.233 * magnitude)
    return {"difficulty": 0.4 + magnitude**1.5 + 0.02 * wobble}


def scenarios() -> list[Scenario]:
    """Return every scenario."""
    return [*of_one_size(), *of_drift(), *of_lengths(), *of_arms()]


def rates(scenario: Scenario, sweeps: int, draw: Draw = sweep) -> dict[str, float]:
    """Return for each measure the share of sweeps in which it holds."""
    chance = np.random.default_rng(sum(map(ord, scenario.name)))
    counts = dict.fromkeys(scenario.measures, 0)
    for _ in range(sweeps):
        rows = draw(scenario, chance)
        for name, (measure, _) in scenario.measures.items():
            counts[name] += measure(scenario, rows)
    return {name: count / sweeps for name, count in counts.items()}


def report(scenario: Scenario, sweeps: int, draw: Draw = sweep) -> int:
    """Print the rate of each measure with its goal, and return how many goals are missed."""
    missed = 0
    for name, rate in rates(scenario, sweeps, draw).items():
        goal = scenario.measures[name][1]
        is_missed = rate < goal if goal > 0 else rate > -goal
        missed += is_missed
        words = (
            f"({'at least' if goal > 0 else 'at most'} {abs(goal):.0%})" + "  MISSED" * is_missed
        )
        print(f"{scenario.name:45s} {name:30s} {rate:6.1%}  {words}", flush=True)
    return missed


def tradeoff(scenario: Scenario, claim: str, sweeps: int) -> dict[float, float]:
    """Return for each level of a test the share of sweeps in which the claim has a verdict."""
    chance = np.random.default_rng(sum(map(ord, scenario.name)))
    p_values = [claims(sweep(scenario, chance), names=[claim])[0].p for _ in range(sweeps)]
    return {
        level: float(np.mean(np.array(p_values) < level))
        for level in (0.01, 0.025, 0.05, 0.075, 0.1)
    }


def main(args: list[str]) -> int:
    """Print the rate of each measure with its goal; 1 where one was missed."""
    options = parse_options(args, OPTIONS)
    sweeps, only = options["sweeps"], options["only"]
    if options["tradeoff"]:
        for scenario in (s for s in of_drift() if only in s.name):
            (name,) = scenario.measures
            shares = tradeoff(scenario, name.split()[0], sweeps)
            shown = (f"{share:5.1%} at {level:g}" for level, share in shares.items())
            print(f"{scenario.name:45s} {name:15s}", *shown, flush=True)
        return 0
    return 1 if sum(report(s, sweeps) for s in scenarios() if only in s.name) else 0


if __name__ == "__main__":
    command(main, __doc__, needs_arguments=False)
