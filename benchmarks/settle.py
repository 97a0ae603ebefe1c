"""Measures what `settle` saves, and how often it is right, on simulated sweeps.

python benchmarks/settle.py                       # 300 sweeps of every scenario, about an hour
python benchmarks/settle.py sweeps=50 only=peaked
python benchmarks/settle.py verdicts=true         # tables and claims, as benchmarks/verdicts.py
python benchmarks/settle.py verdicts=true first=2 # with 2 first seeds of a magnitude, not 3

A sweep has 4 sizes, 9 magnitudes and up to 10 seeds. All methods see the same results: the full
grid with 1 to 10 seeds, `settle`, Optuna's TPE with as many trainings as `settle`, and successive
elimination. Two rules choose the magnitude: that of `analysis.table` and `settle`, the lowest
expected loss on smooth curves among the ties of the highest mean; and the highest mean itself.

"full / settle" is the number of trainings of the full grid, at as many seeds as it needs for the
expected loss of `settle`, divided by those of `settle`; ">" where 10 seeds do not reach that loss.
Both are read by the same rule, unless the line says otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd
import verdicts
from curves import M8
from numpy.typing import NDArray

from analysis.best import best_per_size, position
from analysis.columns import NONE
from harness import statistics as stats
from harness.arguments import Option, parse_options
from harness.errors import UserError, command
from harness.states import RULED_OUT
from harness.sweep.grid import Trial
from harness.sweep.settle import SettleConfig, settle

OPTIONS = {
    "sweeps": Option(int, default=300, low=1),
    "only": Option(default=""),
    "verdicts": Option(bool, default=False),
    "first": Option(int, default=3, low=1),
    "tpe": Option(bool, default=True),
}
MAGNITUDES = (NONE, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0)
PLACES = np.array([position(magnitude) for magnitude in MAGNITUDES])
SIZES, SEEDS = 4, 10
RULE = SettleConfig(within=0.3, seeds=(2, SEEDS))
SEEDS_OF_CURVE = (1, 2, 3, 4, 5, 7, 10)  # of a full grid that is read by the curve
Values = NDArray[np.float64]
Cells = Mapping[int, Sequence[float]]  # results by the index of the magnitude


@dataclass(frozen=True)
class Truth:
    """Points of accuracy, from the top, over magnitude, and the noise of a run at each size."""

    name: str
    curve: Callable[[Values], Values]
    noise: tuple[float, ...] = (0.25,) * SIZES
    least_ratio: float | None = None  # goal of full / settle


def parabola(left: float, optimum: float, right: float | None = None) -> Callable[[Values], Values]:
    """Return a curve that loses `left` points at 0.4 below its optimum, and `right` above it."""
    above = left if right is None else right
    return lambda x: -np.where(x < optimum, left, above) * ((x - optimum) / 0.4) ** 2


TRUTHS = (
    Truth("flat", lambda x: 0 * x),
    Truth("peaked, 0.5 points", parabola(0.5, 0.4)),
    Truth("peaked, 1 point", parabola(1, 0.4), least_ratio=2.5),
    Truth("peaked, 2 points", parabola(2, 0.4)),
    Truth("peaked, 4 points", parabola(4, 0.4), least_ratio=4),
    Truth("peaked, 1 point, noise 0.5", parabola(1, 0.4), (0.5,) * SIZES),
    Truth("peaked, 4 points, noise 0.5", parabola(4, 0.4), (0.5,) * SIZES),
    Truth("noisier small models", parabola(1, 0.4), (0.5, 0.35, 0.25, 0.15)),
    Truth("asymmetric", parabola(1, 0.4, 3)),
    Truth("end of grid", parabola(1, 1.0)),
    Truth("none is best", parabola(1, 0.0)),
    # not of the family of curves that the rule assumes
    Truth("none a point above the curve", lambda x: parabola(1, 0.4)(x) + 1.5 * (x == 0)),
    Truth("collapse above 0.6", lambda x: parabola(1, 0.6)(x) - 30 * (x > 0.7)),
    Truth("kink, steeper above", lambda x: -np.where(x < 0.3, 0.3 - x, 3 * (x - 0.3)) / 0.4),
    Truth("cliff above 0.5", lambda x: x - 5 * (x > 0.55)),
)


class Outcome(NamedTuple):
    """What one method did in one sweep: trainings, and the chosen magnitude of each size."""

    trainings: int
    chosen: list[int]


# --- the methods --------------------------------------------------------------------------------


def by_table(cells: Cells) -> int:
    """Return the magnitude that `analysis.table` prints."""
    places = {at: None if MAGNITUDES[at] == NONE else float(PLACES[at]) for at in cells}
    return stats.choose(cells, places, stats.spreads(cells))


def by_mean(cells: Cells) -> int:
    """Return the magnitude with the highest mean, shrunk where standard errors differ."""
    return stats.highest_mean(cells, stats.spreads(cells), 1)


def full_grid(runs: Values, seeds: int, choose: Callable[[Cells], int]) -> Outcome:
    """Return the choice from the first seeds of every magnitude."""
    chosen = [choose({at: cell[:seeds].tolist() for at, cell in enumerate(size)}) for size in runs]
    return Outcome(SIZES * len(MAGNITUDES) * seeds, chosen)


def elimination(runs: Values) -> Outcome:
    """Return the choice of successive elimination.

    Every magnitude starts with two seeds. A round drops those that t tests show to be worse than
    the highest mean, and adds a seed to each of the others.
    """
    trainings, chosen = 0, []
    for size in runs:
        seeds = dict.fromkeys(range(len(MAGNITUDES)), 2)
        active = list(seeds)
        while True:
            cells = {at: size[at, : seeds[at]].tolist() for at in active}
            best = max(active, key=lambda at: stats.mean(cells[at]))
            active = stats.ties(cells, best, stats.spreads(cells), 1)
            if len(active) == 1 or seeds[best] == SEEDS:
                break
            seeds |= {at: seeds[at] + 1 for at in active}
        trainings += sum(seeds.values())
        chosen.append(best)
    return Outcome(trainings, chosen)


def tpe(runs: Values, budgets: Sequence[int]) -> Outcome:
    """Return the choice of Optuna's TPE over the ordered magnitudes, with a budget for each size.

    Each trial is a further seed of its magnitude. The highest mean is chosen, as a user of repeated
    trials would; the best single trial, which Optuna reports, is mostly luck.
    """
    try:
        import optuna
    except ImportError as error:
        remedy = "pip install optuna, or add tpe=false"
        raise UserError(f"the comparison with TPE needs Optuna: {remedy}") from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    chosen = []
    for number, (size, budget) in enumerate(zip(runs, budgets, strict=True)):
        study = optuna.create_study(
            direction="maximize", sampler=optuna.samplers.TPESampler(seed=number)
        )
        cells: dict[int, list[float]] = {}
        for _ in range(budget):
            trial = study.ask()
            at = trial.suggest_int("magnitude", 0, len(MAGNITUDES) - 1)
            cell = cells.setdefault(at, [])
            cell.append(size[at, len(cell)])
            study.tell(trial, cell[-1])
        chosen.append(by_mean(cells))
    return Outcome(sum(budgets), chosen)


GRID = [
    Trial(f"{size}/{at}/{seed}", {"width": size, "magnitude": m, "seed": seed}, config=None)  # type: ignore[arg-type]
    for size in range(SIZES)
    for at, m in enumerate(MAGNITUDES)
    for seed in range(SEEDS)
]


RIGHTS = (
    "choice is within 0.3",
    "highest mean is within 0.3",
    "table prints the choice",
    "ties hold the best",
    "says no difference",
    "seeds used up",
    "rounds",
)


class Measured(NamedTuple):
    """Means over sweeps: (trainings, points lost by the choice) by method; RIGHTS of `settle`."""

    means: dict[str, Values]
    rights: dict[str, float]


# --- the simulation -----------------------------------------------------------------------------


def simulate(truth: Truth, sweeps: int, with_tpe: bool) -> Measured:
    """Return trainings and losses of each method, and how often `settle` was right."""
    losses = -truth.curve(PLACES)
    losses -= losses.min()
    records: dict[str, list[tuple[int, float]]] = {}
    rights = []
    for number in range(sweeps):
        chance = np.random.default_rng([7, number])  # the same runs in every scenario
        noise = np.array(truth.noise)[:, None, None] * chance.standard_normal((SIZES, 9, 100))
        runs = 0.9 + (noise - losses[:, None]) / 100
        results = {t.id: float(runs[tuple(map(int, t.id.split("/")))]) for t in GRID}
        state = settle(GRID, RULE, results)
        smooth = [MAGNITUDES.index(size.best) for size in state.sizes]
        rows = pd.DataFrame(
            {**t.cell, "state": "done", "val_top1": results[t.id], "test_top1": results[t.id]}
            for t in GRID
            if t.id in state.chosen
        )
        rows["magnitude"] = rows["magnitude"].astype(object)
        table = best_per_size(rows, by=["width"], optima=False)
        printed = [MAGNITUDES.index(size.best.magnitude) for size in table]
        cells = [{MAGNITUDES.index(c.magnitude): c.val for c in size.cells} for size in table]
        highest = [by_mean(of_size) for of_size in cells]
        is_close = losses <= RULE.within + 1e-9
        best_places = set(PLACES[losses < 1e-9])
        reasons = [size.reason for size in state.sizes]
        rights.append(
            [
                is_close[smooth].mean(),
                is_close[highest].mean(),
                np.mean(np.equal(printed, smooth)),
                np.mean([bool(best_places & set(map(position, size.ties))) for size in table]),
                np.mean([reason.startswith("no difference beyond") for reason in reasons]),
                np.mean([reason.startswith("its seeds are used up") for reason in reasons]),
                state.number,
            ]
        )
        spent = len(state.chosen)
        outcomes = {
            "settle": Outcome(spent, smooth),
            "settle, highest mean": Outcome(spent, highest),
            "elimination": elimination(runs[:, :, :SEEDS]),
            **{f"full {n}": full_grid(runs, n, by_table) for n in SEEDS_OF_CURVE},
            **{f"highest mean {n}": full_grid(runs, n, by_mean) for n in range(1, SEEDS + 1)},
        }
        if with_tpe:
            outcomes["TPE"] = tpe(runs, [sum(s.seeds.values()) for s in state.sizes])
        for name, outcome in outcomes.items():
            loss = float(losses[outcome.chosen].mean())
            records.setdefault(name, []).append((outcome.trainings, loss))
    means = {name: np.mean(values, axis=0) for name, values in records.items()}
    return Measured(means, dict(zip(RIGHTS, np.mean(rights, axis=0).tolist(), strict=True)))


def equal_loss(means: Mapping[str, Values], method: str, grid: str) -> tuple[float, bool]:
    """Return trainings of the full grid at equal loss / those of the method.

    The second value says that the full grid needs even more than 10 seeds. Between two numbers of
    seeds, its loss is interpolated.
    """
    seeds = SEEDS_OF_CURVE if grid == "full" else range(1, SEEDS + 1)
    spent, loss = means[method]
    falling = np.minimum.accumulate([means[f"{grid} {n}"][1] for n in seeds])
    needed = float(np.interp(-loss, -falling, seeds))
    return SIZES * len(MAGNITUDES) * needed / spent, bool(loss < falling[-1])


COMPARED = (  # the method, the full grid, and a heading
    ("settle", "full", "full / settle"),
    ("settle", "highest mean", "full by highest mean / settle"),
    ("settle, highest mean", "highest mean", "both by the highest mean"),
    ("elimination", "highest mean", "full by highest mean / elimination"),
    ("TPE", "highest mean", "full by highest mean / TPE"),
)


def report(truth: Truth, measured: Measured) -> int:
    """Print what was measured for one truth; return how many goals were missed."""
    means, rights = measured
    full = SIZES * len(MAGNITUDES) * SEEDS
    print(f"\n{truth.name}: {means['settle'][0]:.0f} trainings of {full}, "
          f"{rights['rounds']:.1f} rounds")  # fmt: skip
    shown = ["settle", "settle, highest mean", "elimination", "TPE"]
    shown += [f"{grid} {n}" for grid in ("full", "highest mean") for n in (1, 2, 3, 5, 10)]
    for name in (name for name in shown if name in means):
        print(f"  {name:34s} {means[name][0]:5.0f} trainings   loses {means[name][1]:.3f} points")
    if truth.name != "flat":
        for method, grid, heading in COMPARED:
            if method in means:
                ratio, is_more = equal_loss(means, method, grid)
                print(f"  {heading:34s} {'>' * is_more:>1s}{ratio:5.2f}")
    for name in RIGHTS[:-1]:
        print(f"  {name:34s} {rights[name]:6.1%}")
    missed = [name for name, least in (("choice is within 0.3", 0.95), ("ties hold the best", 0.93))
              if rights[name] < least]  # fmt: skip
    if truth.least_ratio and equal_loss(means, "settle", "full")[0] < truth.least_ratio:
        missed.append(f"full / settle of {truth.least_ratio:g}")
    if means["settle"][0] > full:
        missed.append("trainings")
    for name in missed:
        print(f"  MISSED: {name}")
    return len(missed)


# --- tables and claims of settled sweeps --------------------------------------------------------


def settled(
    scenario: verdicts.Scenario, chance: np.random.Generator, first: int = 3
) -> pd.DataFrame:
    """Return the rows of a sweep of 10 seeds with `settle`; `first` seeds in round 1.

    Trials that the rule did not choose are ruled out, as in the rows of a sweep.
    """
    rule = SettleConfig(within=RULE.within, seeds=(first, SEEDS))
    rows = verdicts.sweep(replace(scenario, seeds=lambda size, magnitude: SEEDS), chance)
    arms = [name for arm in scenario.arms for name in arm]
    axes = list(dict.fromkeys([*arms, "magnitude", "seed"]))
    cells = rows[axes].to_dict("records")
    trials = [Trial(str(at), cell, config=None) for at, cell in enumerate(cells)]  # type: ignore[arg-type]
    values = [None if math.isnan(value) else value for value in rows["val_top1"]]
    chosen = settle(trials, rule, {str(at): value for at, value in enumerate(values)}).chosen
    left_out = [str(at) not in chosen for at in range(len(rows))]
    rows.loc[left_out, ["state", "val_top1", "test_top1"]] = [RULED_OUT, math.nan, math.nan]
    return rows


def report_verdicts(sweeps: int, only: str, first: int) -> int:
    """Print the rates of tables and of A1 and A2 on settled sweeps; return how many goals fail."""
    missed = 0
    for scenario in [*verdicts.of_one_size(), *verdicts.of_drift()]:
        has_own_seeds = {scenario.seeds(0, place) for place in M8} != {3}
        if not has_own_seeds and only in scenario.name:
            missed += verdicts.report(scenario, sweeps, partial(settled, first=first))
    return missed


def main(args: list[str]) -> int:
    """Print what was measured; 1 where a goal was missed."""
    options = parse_options(args, OPTIONS)
    sweeps, only = options["sweeps"], options["only"]
    if options["verdicts"]:
        return 1 if report_verdicts(sweeps, only, options["first"]) else 0
    truths = [truth for truth in TRUTHS if only in truth.name]
    missed = [report(truth, simulate(truth, sweeps, options["tpe"])) for truth in truths]
    return 1 if any(missed) else 0


if __name__ == "__main__":
    command(main, __doc__, needs_arguments=False)
