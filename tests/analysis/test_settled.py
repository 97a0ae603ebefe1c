"""Sweeps whose rule (`settle`) left trials out: they are ruled out, not missing and not open."""

import math
import random
import re

import pandas as pd
import pytest

from analysis import report, report_tables
from analysis.best import best_per_size
from analysis.claims import claims
from analysis.compare import compare
from analysis.figures import figures
from analysis.provenance import warnings
from analysis.render import csv, screen
from analysis.table import best_table
from harness.sweep.grid import Trial
from harness.sweep.settle import SettleConfig, settle

MAGNITUDES = ("none", 0.2, 0.4, 0.5, 0.6, 0.8)
CURVES = {0.5: (0.80, 0.82, 0.86, 0.90, 0.86, 0.70), 2.0: (0.80, 0.80, 0.82, 0.84, 0.90, 0.85)}
UNTRAINED = {0.5: ("none", 0.6), 2.0: (0.2,)}


@pytest.fixture
def settled(planted):
    """Some magnitudes were not trained, the others have 2 seeds of 6, and the best have 4."""

    def make(**more):
        frame = planted(CURVES, seeds=6, spread=0.002, magnitudes=MAGNITUDES, **more)
        cells = zip(frame["width"], frame["magnitude"], frame["seed"], strict=True)
        is_left_out = [m in UNTRAINED[w] or s >= (4 if m == 0.5 else 2) for w, m, s in cells]
        frame.loc[is_left_out, ["state", "val_top1", "test_top1"]] = [
            "ruled out", math.nan, math.nan,
        ]  # fmt: skip
        return frame

    return make


def test_a_trial_that_was_ruled_out_is_neither_missing_nor_open(settled):
    small, large = results = best_per_size(settled())
    assert (small.ruled_out, large.ruled_out) == (UNTRAINED[0.5], UNTRAINED[2.0])
    assert (small.open, large.open) == ((), ())
    assert {cell.missing for cell in (*small.cells, *large.cells)} == {0}
    table = best_table(results, warnings(settled()))
    shown = screen(table)
    assert not re.search(r"missing|open|waiting|trials are done", shown)
    assert "incomplete" not in table.header
    at = table.header.index("ruled out")
    assert [row[at] for row in table.rows] == ["none, 0.6", "0.2"]
    assert "Ruled out: 1 to 2 of the 6 magnitudes of a size" in " ".join(shown.split())
    assert "ruled out another 50 trials" in " ".join(shown.split())
    held = table.frame()
    assert list(held["ruled_out"]) == ["none 0.6", "0.2"]
    assert list(held["seeds_min"]) == [2, 2]
    assert list(held["missing"]) == [0, 0]
    assert "ruled_out" in csv(table).splitlines()[0]


def test_a_magnitude_that_was_ruled_out_bounds_the_optimum(settled):
    frame = settled()
    small, _ = best_per_size(frame)
    assert small.ties == (0.5,)
    assert small.optimum.low >= 0.4
    assert small.optimum.high < 0.8
    without, _ = best_per_size(frame[frame["magnitude"] != 0.6])
    assert without.optimum.high == 0.8  # the next magnitude of which anything is known
    waiting = frame.assign(state=frame["state"].replace("ruled out", "waiting"))
    unbounded, _ = best_per_size(waiting)
    assert set(unbounded.open) == set(UNTRAINED[0.5])
    assert unbounded.optimum.high == 0.8


def test_a_diverged_seed_of_a_cell_that_went_on_no_further_leaves_it_open(settled):
    frame = settled()
    cell = (frame["width"] == 0.5) & (frame["magnitude"] == 0.5)
    frame.loc[cell & (frame["seed"] == 0), ["state", "val_top1", "test_top1"]] = [
        "diverged", math.nan, math.nan,
    ]  # fmt: skip
    assert best_per_size(frame)[0].open == (0.5,)
    frame.loc[cell & (frame["state"] == "done"), ["state", "val_top1", "test_top1"]] = [
        "diverged", math.nan, math.nan,
    ]  # fmt: skip
    assert best_per_size(frame)[0].open == ()  # every seed that was trained diverged


@pytest.mark.parametrize("seed", range(6))
def test_the_table_prints_the_best_of_the_rule(seed):
    chance = random.Random(seed)
    grid = [
        Trial(f"{m}/{s}", {"width": 1.0, "magnitude": m, "seed": s}, config=None)
        for m in ("none", *(step / 10 for step in range(1, 9)))
        for s in range(8)
    ]
    results = {}
    for trial in grid:
        m = trial.cell["magnitude"]
        place = 0.0 if m == "none" else m
        curve = -(((place - 0.4) / 0.4) ** 2) - 5 * (place > 0.65 and seed > 2)
        value = 0.9 + (curve + chance.gauss(0, 0.3)) / 100
        results[trial.id] = None if chance.random() < 0.08 else value
    state = settle(grid, SettleConfig(within=0.3, seeds=(2, 8)), results)
    rows = [
        {
            **trial.cell,
            "state": "diverged" if (value := results[trial.id]) is None else "done",
            "val_top1": math.nan if value is None else value,
            "test_top1": math.nan if value is None else value,
        }
        for trial in grid
        if trial.id in state.chosen
    ]
    frame = pd.DataFrame(rows)
    (size,) = best_per_size(frame.assign(magnitude=frame["magnitude"].astype(object)))
    assert size.best.magnitude == state.sizes[0].best


def test_claims_count_the_trials_that_the_rule_chose(settled):
    frame = settled()
    verdict = next(result for result in claims(frame) if result.claim == "A1")
    done = int((frame["state"] == "done").sum())
    assert (verdict.done, verdict.trials) == (done, done)


def test_the_report_of_a_settled_sweep_is_not_an_interim_one(settled):
    frame = settled(grid="quickstart")
    done = int((frame["state"] == "done").sum())
    page = report.report(frame)
    assert "interim" not in page
    assert f"{done} of {done} trials are done, {len(frame) - done} more were ruled out" in page
    assert "2 more magnitudes were ruled out without a training." in page
    assert "1 more magnitude was ruled out without a training." in page
    assert "have no result" not in page
    results = best_per_size(frame)
    (seeds, _) = report_tables.completeness(results).rows
    two, four = "2 of 6, 4 ruled out", "4 of 6, 2 ruled out"
    assert seeds[1:] == ("ruled out", two, two, four, "ruled out", two)
    cost = report_tables.cost(frame.assign(gpu_seconds=10.0), ["width"])
    assert [row[cost.header.index("left")] for row in cost.rows] == ["0", "0"]
    texts = {text.get_text() for text in figures(frame, results)["heat_map"].axes[0].texts}
    assert "ruled\nout" in texts
    assert "-" not in texts


def test_the_full_grid_settles_what_the_rule_left_undecided(settled):
    frame = settled(grid="quickstart")
    frame = frame[frame["magnitude"].isin(["none", 0.4, 0.5])]
    flat = frame.assign(val_top1=0.9 + 0.001 * frame["seed"]).where(frame["state"] == "done", frame)
    page = report.report(flat)
    assert "python -m harness.launch grid=quickstart settle=false" in page
    assert "axes.seed=" not in page


def test_a_cell_that_was_ruled_out_of_one_sweep_is_named_in_a_comparison(settled, planted):
    frame = settled()
    full = planted(CURVES, seeds=6, spread=0.002, magnitudes=MAGNITUDES)
    changes = {(c.size["width"], c.magnitude): c.verdict for c in compare(frame, full)}
    assert changes[0.5, "none"] == "ruled out in first"
    assert changes[0.5, 0.5] == "within noise"


def test_strong_augmentation_that_was_ruled_out_is_not_judged_by_a_weaker_one(planted):
    curves = {0.5: (0.9, 0.88, 0.80, 0.70), 2.0: (0.80, 0.85, 0.88, 0.90)}
    frame = planted(curves, spread=0.002)
    full = next(result for result in claims(frame) if result.claim == "B1")
    assert full.verdict == "supported"
    strongest = (frame["magnitude"] == 0.8) & (frame["width"] == 0.5)
    frame.loc[strongest, ["state", "val_top1", "test_top1"]] = ["ruled out", math.nan, math.nan]
    weaker = next(result for result in claims(frame) if result.claim == "B1")
    assert weaker.verdict == "undecided"
    assert weaker.compared.startswith("none to 0.5: ")
    assert weaker.compared.endswith(
        "; no verdict: ruled out and not compared: 0.8 (settle=false trains them)"
    )
    frame = frame[~strongest]  # a grid that never had the cell
    assert next(r for r in claims(frame) if r.claim == "B1").verdict == "supported"


def test_the_ends_of_a_form_of_surplus_are_those_of_the_grid(planted):
    curves = {"none": (0.9, 0.88, 0.86, 0.80), "slice": (0.9, 0.9, 0.9, 0.9)}
    arms = [planted({1.0: curve}, surplus=form, spread=0.002) for form, curve in curves.items()]
    frame = pd.concat(arms, ignore_index=True).assign(trial=None, epochs=10)
    assert next(r for r in claims(frame) if r.claim == "B2").verdict == "supported"
    strongest = (frame["magnitude"] == 0.8) & (frame["surplus"] == "none")
    frame.loc[strongest, ["state", "val_top1", "test_top1"]] = ["ruled out", math.nan, math.nan]
    weaker = next(r for r in claims(frame) if r.claim == "B2")
    assert weaker.verdict == "undecided"
    assert "ruled out and not compared: 0.8" in weaker.compared
