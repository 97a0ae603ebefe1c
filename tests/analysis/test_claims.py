"""The claims on simulated sweeps: planted effects are found, flat ones are left alone."""

import math
import random
import subprocess
import sys

import pandas as pd
import pytest

from analysis import render, rows
from analysis.best import METRICS
from analysis.claims import PREDICTED, claims, table

MAGNITUDES = [0.1 * step for step in range(8)]
SPREAD = 0.002  # 0.2 points, half of the variance shared by validation and test


def sweep(chance, curve, arms, magnitudes=MAGNITUDES, seeds=3, **constant):
    """`curve(arm number, magnitude)` is the true accuracy; `arms` are columns of their own."""
    made = []
    for number, arm in enumerate(arms):
        for magnitude in magnitudes:
            for seed in range(seeds):
                run = curve(number, magnitude) + chance.gauss(0, SPREAD * 0.7)
                val, test = (run + chance.gauss(0, SPREAD * 0.7) for _ in range(2))
                made.append({
                    "trial": str(len(made)), "state": "done", "sparsity": 0.0,
                    "magnitude": magnitude, "seed": seed, "val_top1": val, "test_top1": test,
                    **constant, **arm,
                })  # fmt: skip
    return pd.DataFrame(made)


def verdict(frame, name, **more):
    return next(claim for claim in claims(frame, **more) if claim.name == name)


WIDTHS = [{"width": float(width)} for width in (1, 2, 4, 8)]
SPARSITIES = [{"width": 1.0, "sparsity": share} for share in (0.0, 0.5, 0.8, 0.95)]


def shifting(step):
    """The optimum moves by one grid step a size; four steps off cost half a point."""
    return lambda number, m: 0.9 - 0.005 * ((m - 0.2 - step * number) / 0.4) ** 2


def one_optimum(number, magnitude):
    return 0.8 + 0.02 * number - 0.01 * ((magnitude - 0.4) / 0.4) ** 2


@pytest.mark.parametrize("curve", [lambda number, m: 0.9, one_optimum])
def test_no_shift_is_rarely_taken_for_one(curve):
    chance, alarms = random.Random(0), 0
    for _ in range(300):
        alarms += verdict(sweep(chance, curve, WIDTHS), "A1").verdict != "undecided"
    assert alarms / 300 < 0.07


@pytest.mark.parametrize(("name", "arms", "step"), [("A1", WIDTHS, 0.1), ("A2", SPARSITIES, -0.1)])
def test_a_shift_of_one_grid_step_is_found_in_its_direction(name, arms, step):
    chance = random.Random(1)
    found = [verdict(sweep(chance, shifting(step), arms), name).verdict for _ in range(100)]
    assert found.count("supported") > 90
    against = verdict(sweep(chance, shifting(-step), arms), name)
    assert against.verdict == "contradicted"
    assert against.effect.estimate.effect < 0


def test_the_effect_is_the_change_of_slope_per_size():
    frame = sweep(random.Random(2), lambda n, m: 0.8 + 0.03 * n * m, WIDTHS, seeds=10)
    estimate = verdict(frame, "A1").effect.estimate
    assert estimate.effect == pytest.approx(0.03, abs=0.002)
    assert abs(estimate.effect - 0.03) < estimate.half


def test_a_size_that_has_hardly_begun_does_not_stop_the_others():
    frame = sweep(random.Random(3), shifting(0.1), WIDTHS)
    begun = frame[(frame["width"] < 8) | (frame["magnitude"] == 0.0)]
    claim = verdict(begun, "A1")
    assert "3 x 8 cells" in claim.effect.compared
    assert claim.verdict == "supported"


def schedules(chance, gain, varying=3, **constant):
    arms = [{"schedule": "constant"}, {"schedule": "falling"}]
    frame = sweep(chance, lambda n, m: 0.9 + gain * n, arms, [0.1, 0.3, 0.5], **constant)
    return frame[(frame["schedule"] == "constant") | (frame["magnitude"] < 0.2 * varying)]


@pytest.mark.slow
@pytest.mark.parametrize("varying", [1, 3])
def test_schedules_that_do_nothing_are_undecided(varying):
    chance, alarms = random.Random(4), 0
    for _ in range(300):
        frame = schedules(chance, 0.0, varying)
        alarms += verdict(frame, "A3").verdict != "undecided"
    assert alarms / 300 < 0.07


def test_a_schedule_that_helps_is_supported_and_one_that_harms_contradicted():
    assert verdict(schedules(random.Random(5), 0.02), "A3").verdict == "supported"
    assert verdict(schedules(random.Random(5), -0.02), "A3").verdict == "contradicted"


def test_unequal_budgets_are_refused_unless_told_to():
    frame = schedules(random.Random(6), 0.02)
    frame["epochs"] = [40 if kind == "constant" else 60 for kind in frame["schedule"]]
    refused = verdict(frame, "A3")
    assert refused.verdict == "not tested"
    assert "40 to 60 epochs" in refused.reason
    assert verdict(frame, "A3", unequal_budgets=True).verdict == "supported"


def test_arms_are_chosen_on_validation():
    frame = schedules(random.Random(7), 0.0)
    chosen = verdict(frame, "A3").reason
    frame["test_top1"] = [random.Random(i).random() for i in range(len(frame))]
    assert verdict(frame, "A3").reason == chosen


def test_surplus_that_takes_the_harm_away_is_an_interaction():
    arms = [{"surplus": "none"}, {"surplus": "slice"}, {"surplus": "fuse"}]
    harm = {0: 0.03, 1: 0.0, 2: 0.03}
    frame = sweep(random.Random(8), lambda n, m: 0.9 + 0.02 * n - harm[n] * m, arms, [0.0, 1.0])
    fused, sliced = (claim for claim in claims(frame) if claim.name == "B")
    assert (sliced.verdict, fused.verdict) == ("supported", "undecided")
    assert sliced.effect.estimate.effect == pytest.approx(0.03, abs=0.01)


def test_difficulty_that_orders_accuracy_is_a_rank_correlation():
    frame = sweep(random.Random(9), lambda n, m: 0.9 - 0.1 * m, WIDTHS[:1])
    frame["difficulty"] = [1 + m for m in frame["magnitude"]]
    found = verdict(frame, "C1")
    assert found.verdict == "supported"
    assert found.effect.estimate.effect > 0.9
    frame["difficulty"] = -frame["difficulty"]
    assert verdict(frame, "C1").verdict == "contradicted"
    # few policies of each of two spaces are ranked together
    arms = [{"policy": f"space{n}", "calibrated": bool(n)} for n in range(2)]
    frame = sweep(random.Random(9), lambda n, m: 0.9 - 0.1 * m, arms, MAGNITUDES[:3])
    frame["difficulty"] = [
        1 + m + 0.01 * k for m, k in zip(frame["magnitude"], frame["calibrated"])
    ]
    assert verdict(frame, "C1").reason == "rank correlation over 6 policies"


def test_calibrated_spaces_are_told_from_uncalibrated_ones():
    arms = [{"calibrated": False}, {"calibrated": True}]
    frame = sweep(random.Random(10), lambda n, m: 0.9 + 0.02 * n, arms, [0.1, 0.3])
    assert verdict(frame, "C2").verdict == "supported"
    again = frame.assign(calibrated=[str(value) for value in frame["calibrated"]])
    assert verdict(again, "C2").verdict == "supported"
    # as a sweep writes them: a policy for each, and `none`, which is neither
    for arm, policy in zip(arms, ("randaug_strict(n=2)", "mine.yaml(n=2)"), strict=True):
        arm["policy"] = policy
    frame = sweep(random.Random(10), lambda n, m: 0.9 + 0.02 * n, arms, [0.1, 0.3])
    none = sweep(random.Random(11), lambda n, m: 0.99, arms[:1], ["none"])
    found = verdict(pd.concat([frame, none], ignore_index=True).assign(trial=None), "C2")
    assert found.verdict == "supported"
    assert found.reason.endswith("(4 arms)")


def test_groups_are_tested_apart_and_corrected_together():
    parts = [
        sweep(random.Random(n), shifting(0.1 if n else 0.0), WIDTHS, family=family, dataset="d")
        for n, family in enumerate(["alike", "moving"])
    ]
    frame = pd.concat(parts, ignore_index=True).assign(trial=None)
    alike, moving = (claim for claim in claims(frame) if claim.name == "A1")
    assert (alike.group, moving.group) == ("family alike", "family moving")
    assert (alike.verdict, moving.verdict) == ("undecided", "supported")
    assert moving.p == pytest.approx(min(1.0, 2 * moving.effect.p))


def test_numbers_that_follow_the_size_part_no_groups():
    frame = sweep(random.Random(3), shifting(0.1), WIDTHS)
    frame["lr"] = [0.1 / width for width in frame["width"]]
    assert verdict(frame, "A1").verdict == "supported"


def test_the_loss_is_judged_the_other_way_round():
    frame = sweep(random.Random(1), shifting(0.1), WIDTHS)
    frame["val_loss"], frame["test_loss"] = 1 - frame["val_top1"], 1 - frame["test_top1"]
    by_loss = verdict(frame, "A1", metric=METRICS["loss"]).effect.estimate
    assert by_loss.effect == pytest.approx(verdict(frame, "A1").effect.estimate.effect)


def test_what_cannot_be_tested_says_why():
    one = sweep(random.Random(0), one_optimum, WIDTHS[:1])
    reasons = {claim.name: claim.reason for claim in claims(one)}
    assert {claim.verdict for claim in claims(one)} == {"not tested"}
    assert "at least two sizes" in reasons["A1"]
    assert "`schedule`" in reasons["A3"]
    nothing = sweep(random.Random(0), one_optimum, WIDTHS)
    nothing = nothing.assign(state="waiting", val_top1=math.nan, test_top1=math.nan)
    assert "that are done" in verdict(nothing, "A1").reason


def test_one_seed_decides_nothing():
    frame = sweep(random.Random(0), shifting(0.1), WIDTHS, seeds=1)
    found = verdict(frame, "A1")
    assert found.verdict == "undecided"
    assert "one seed" in found.reason
    assert "±" not in table([found], []).rows[0][2]


def test_the_command_prints_every_claim_in_every_format(tmp_path):
    frame = rows.check(sweep(random.Random(1), shifting(0.1), WIDTHS), "sweep")
    rows.write(frame, tmp_path)
    said = subprocess.run(
        [sys.executable, "-W", "error", "-m", "analysis.claims", f"rows={tmp_path}/rows.csv"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert said.stderr == ""
    assert all(f"\n  {name.rjust(5)}  " in said.stdout for name in PREDICTED)
    shown = table(claims(frame), [])
    for shape in render.FORMATS:
        assert "supported" in render.show(shown, shape)
