"""The claims on simulated sweeps: planted effects are found, flat ones are left alone."""

import math
import random
import re

import numpy as np
import pandas as pd
import pytest

from analysis.claims import claims, claims_table
from analysis.columns import METRICS

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
    return claims(frame, **more, names=[name])[0]


WIDTHS = [{"width": float(width)} for width in (1, 2, 4, 8)]
SPARSITIES = [{"width": 1.0, "sparsity": share} for share in (0.0, 0.5, 0.8, 0.95)]


def shifting(step):
    """The optimum moves by one grid step a size, inside; four steps off cost half a point."""
    first = 0.2 if step > 0 else 0.5
    return lambda number, m: 0.9 - 0.005 * ((m - first - step * number) / 0.4) ** 2


def one_optimum(number, magnitude):
    return 0.8 + 0.02 * number - 0.01 * ((magnitude - 0.4) / 0.4) ** 2


@pytest.mark.slow
@pytest.mark.parametrize("curve", [lambda number, m: 0.9, one_optimum])
def test_no_shift_is_rarely_taken_for_one(curve):
    chance, alarms = random.Random(0), 0
    for _ in range(300):
        alarms += verdict(sweep(chance, curve, WIDTHS), "A1").verdict != "undecided"
    assert alarms / 300 < 0.07


@pytest.mark.slow
@pytest.mark.parametrize(("name", "arms", "step"), [("A1", WIDTHS, 0.1), ("A2", SPARSITIES, -0.1)])
def test_a_shift_of_one_grid_step_is_found_in_its_direction(name, arms, step):
    chance = random.Random(1)
    verdicts = [verdict(sweep(chance, shifting(step), arms), name).verdict for _ in range(100)]
    assert verdicts.count("supported") > 90
    against = verdict(sweep(chance, shifting(-step), arms), name)
    assert against.verdict == "contradicted"
    assert against.effect.estimate.effect < 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "curve",
    [
        lambda n, m: 0.8 + 0.02 * n - (0.03 - 0.006 * n) * m,
        lambda n, m: 0.8 + 0.02 * n - (0.06 - 0.014 * n) * m**2,
        lambda n, m: 0.8 + 0.02 * n - (0.02 - 0.005 * n) * ((m - 0.2) / 0.4) ** 2,
    ],
)
def test_slopes_that_differ_are_no_optimum_that_moves(curve):
    chance = random.Random(1)
    results = [verdict(sweep(chance, curve, WIDTHS), "A1") for _ in range(100)]
    assert sum(claim.p < 0.05 for claim in results) > 90
    assert sum(claim.verdict != "undecided" for claim in results) < 7


def test_none_that_wins_everywhere_does_not_move(planted):
    curves = {0.5: (0.80, 0.79, 0.75, 0.60), 2.0: (0.90, 0.89, 0.88, 0.86)}
    line = verdict(planted(curves, spread=0.002), "A1")
    assert line.p < 0.001
    assert line.effect.estimate.effect > 0
    assert line.verdict == "undecided"
    assert math.isnan(line.seeds_to_settle)  # no number of seeds settles what the winners withhold
    assert line.compared.endswith("not shown to move: none at every width")
    curves = {0.5: (0.80, 0.82, 0.78, 0.70), 2.0: (0.85, 0.87, 0.90, 0.88)}
    assert verdict(planted(curves, spread=0.002), "A1").verdict == "supported"


def test_winners_alone_decide_nothing_where_an_optimum_is_unknown():
    """Flat up to 0.2, and strong magnitudes harm small sizes: nothing moves, but maxima jump."""

    def harmed(n, m):
        return 0.9 - (0.0 if m == "none" or m <= 0.2 else (0.03 - 0.006 * n) * (m - 0.2))

    chance = random.Random(1)
    for magnitudes in ([0.2, 0.8], [0.1, 0.2, 0.5, 0.8]):
        for _ in range(20):
            frame = sweep(chance, harmed, WIDTHS, ["none", *magnitudes])
            if len(magnitudes) > 2:  # the largest has but one seed so far
                frame = frame[(frame["width"] < frame["width"].max()) | (frame["seed"] == 0)]
            assert verdict(frame, "A1").verdict == "undecided"


def test_sizes_of_other_lengths_are_refused_and_longer_paths_told():
    frame = sweep(random.Random(4), shifting(0.1), WIDTHS)
    frame["epochs"] = [int(10 * width) + 10 for width in frame["width"]]
    assert "unequal budgets" in verdict(frame, "A1").compared
    assert verdict(frame, "A1", unequal_budgets=True).verdict == "supported"
    frame = sweep(random.Random(4), shifting(-0.1), SPARSITIES)
    frame["epochs"] = [int(40 * sparsity) + 10 for sparsity in frame["sparsity"]]
    line = verdict(frame, "A2")
    assert line.verdict == "supported"
    assert re.search(r"; paths of 10 to \d+ epochs", line.compared)


def test_longer_dense_trainings_do_not_part_the_pruned_ones():
    """As in `grid=imagenet_resnet50`: its paths go on from 16 epochs; those of 40 stand apart."""
    frame = sweep(random.Random(4), shifting(-0.1), SPARSITIES)
    levels = sorted(frame["sparsity"].unique())
    frame["epochs"] = [16 + 8 * levels.index(sparsity) for sparsity in frame["sparsity"]]
    longer = frame[frame["sparsity"] == 0].assign(epochs=40)
    lines = [line for line in claims(pd.concat([frame, longer])) if line.claim == "A2"]
    assert [line.verdict for line in lines] == ["supported"]
    assert lines[0].done == len(frame)


def test_what_is_left_differs_from_seed_to_seed_and_parts_nothing():
    frame = sweep(random.Random(4), shifting(-0.1), SPARSITIES)
    remaining = 1e6 * (1 - frame["sparsity"]) + 100 * frame["seed"] + 90 * frame["magnitude"]
    frame["macs_nonzero"] = remaining.round().astype(int)
    lines = [line for line in claims(frame, by=["macs_nonzero"]) if line.claim == "A2"]
    assert [line.verdict for line in lines] == ["supported"]


FLAT = {
    "A1": (WIDTHS, MAGNITUDES),
    "A2": (SPARSITIES, MAGNITUDES),
    "A3": ([{"schedule": s} for s in ("constant", "falling", "[0.1, 0]", "rising")], [0.1, 0.3]),
    "B": ([{"surplus": s} for s in ("none", "fuse", "prune_away", "weak_finish")], ["none", 0.6]),
    "C1": ([{"width": 1.0}], MAGNITUDES[:5]),
    "C2": ([{"calibrated": c} for c in (True, False)], [0.1, 0.3, 0.5]),
}


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [2, 3])
@pytest.mark.parametrize("name", FLAT)
def test_no_claim_raises_false_alarms_on_flat_curves(name, seeds):
    arms, magnitudes = FLAT[name]
    frame = sweep(random.Random(0), lambda n, m: 0.9, arms, magnitudes, seeds).assign(epochs=12)
    if name == "C1":
        frame["difficulty"] = frame["magnitude"]
    chance, alarms = np.random.default_rng([ord(letter) for letter in name]), 0
    for _ in range(300):
        runs, *splits = chance.normal(0.0, SPREAD * 0.7, (3, len(frame)))
        val, test = (0.9 + runs + split for split in splits)
        lines = claims(frame.assign(val_top1=val, test_top1=test), names=[name])
        assert all(claim.effect for claim in lines)
        alarms += any(claim.verdict in ("supported", "contradicted") for claim in lines)
    assert alarms / 300 < 0.07


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


@pytest.mark.parametrize(("column", "amounts"), [("epochs", (40, 60)), ("examples", (4e5, 6e5))])
def test_unequal_budgets_are_refused_unless_told_to(column, amounts):
    frame = schedules(random.Random(6), 0.02)
    frame[column] = [amounts[kind != "constant"] for kind in frame["schedule"]]
    refused = verdict(frame, "A3")
    assert refused.verdict == "not tested"
    assert f"{amounts[0]:g} to {amounts[1]:g} {column}" in refused.compared
    assert verdict(frame, "A3", unequal_budgets=True).verdict == "supported"


def test_budgets_that_are_unknown_and_unequal_work_are_told():
    frame = schedules(random.Random(6), 0.02)
    assert verdict(frame, "A3").compared.endswith("budgets unknown: no column epochs or examples")
    frame = frame.assign(epochs=40)
    assert "budgets" not in verdict(frame, "A3").compared
    frame["train_macs"] = [100 if kind == "constant" else 105 for kind in frame["schedule"]]
    assert "multiply-adds" not in verdict(frame, "A3").compared
    frame["train_macs"] = [100 if kind == "constant" else 250 for kind in frame["schedule"]]
    assert "multiply-adds differ up to 2.5 x" in verdict(frame, "A3").compared


def test_arms_are_chosen_on_validation():
    frame = schedules(random.Random(7), 0.0)
    chosen = verdict(frame, "A3").compared
    frame["test_top1"] = [random.Random(i).random() for i in range(len(frame))]
    assert verdict(frame, "A3").compared == chosen


def test_surplus_that_takes_the_harm_away_is_an_interaction():
    arms = [{"surplus": "none"}, {"surplus": "slice"}, {"surplus": "fuse"}]
    harm = {0: 0.03, 1: 0.0, 2: 0.03}
    frame = sweep(random.Random(8), lambda n, m: 0.9 + 0.02 * n - harm[n] * m, arms, [0.0, 1.0])
    fused, sliced = (claim for claim in claims(frame) if claim.claim == "B")
    assert (sliced.verdict, fused.verdict) == ("supported", "undecided")
    assert sliced.effect.estimate.effect == pytest.approx(0.03, abs=0.01)


def surplus_sweep(chance, harm, stages=None, **constant):
    """Arms of `surplus` at magnitudes none and 0.6; `harm[form]`: what strength costs it."""
    arms = [{"surplus": form, "form": form} for form in harm]
    costs = list(harm.values())
    frame = sweep(chance, lambda n, m: 0.9 - costs[n] * (m != "none"), arms, ["none", 0.6])
    return frame.assign(epochs=12, **constant)


def test_a_form_must_beat_its_control_too():
    # surplus does nothing, the weak end does all
    frame = surplus_sweep(random.Random(8), {"none": 0.03, "prune_away": 0.0, "weak_finish": 0.0})
    (line,) = (claim for claim in claims(frame) if claim.claim == "B")
    assert line.verdict == "undecided"
    assert line.compared.startswith("prune_away against weak_finish")
    assert "against none +3.1 ±" in line.compared
    frame = surplus_sweep(random.Random(8), {"none": 0.03, "prune_away": 0.0, "weak_finish": 0.03})
    assert verdict(frame, "B").verdict == "supported"
    started = (frame["surplus"] == "weak_finish") & (frame["magnitude"] == 0.6)
    frame.loc[started, ["state", "val_top1", "test_top1"]] = ["waiting", math.nan, math.nan]
    open_ = verdict(frame, "B")
    assert open_.verdict == "undecided"
    assert "its control weak_finish is not done" in open_.compared
    without = verdict(frame[frame["surplus"] != "weak_finish"], "B")
    assert without.verdict == "supported"
    assert without.compared == "prune_away against none, magnitude none to 0.6"


def test_cells_of_the_same_stages_count_once():
    frame = surplus_sweep(random.Random(8), {"none": 0.03, "prune_away": 0.0})
    weak = frame["magnitude"] == "none"
    shared = frame[weak & (frame["surplus"] == "none")]
    scores = ["val_top1", "test_top1"]
    frame.loc[weak & (frame["surplus"] == "prune_away"), scores] = shared[scores].to_numpy()
    apart = verdict(frame, "B").effect.estimate
    cells = zip(frame["magnitude"], frame["seed"], frame["surplus"], strict=True)
    stages = [f"{m}-{s}" if m == "none" else f"{m}-{s}-{form}" for m, s, form in cells]
    once = verdict(frame.assign(stage=stages), "B").effect.estimate
    assert once.effect == pytest.approx(apart.effect)
    strong = [frame.loc[~weak & (frame["surplus"] == form), "test_top1"] for form in
              ("prune_away", "none")]  # fmt: skip
    assert once.effect == pytest.approx(strong[0].mean() - strong[1].mean())
    assert once.error < apart.error


def test_arms_of_other_epochs_are_controls_of_equal_work():
    frame = surplus_sweep(random.Random(8), {"none": 0.03, "fuse": 0.0})
    frame["train_macs"] = [100 if form == "none" else 330 for form in frame["surplus"]]
    assert "fuse takes 3.3 x the multiply-adds of none" in verdict(frame, "B").compared
    longer = frame[frame["surplus"] == "none"].assign(epochs=36, train_macs=300, trial=None)
    for loss, word in ((0.0, "supported"), (0.06, "undecided")):
        strong = longer["magnitude"] == 0.6
        other = longer.assign(
            val_top1=longer["val_top1"] + loss / 2 * strong,
            test_top1=longer["test_top1"] + loss / 2 * strong,
        )
        (line,) = (
            c for c in claims(pd.concat([frame, other], ignore_index=True)) if c.claim == "B"
        )
        assert line.verdict == word
        assert "none of 36 epochs" in line.compared
        assert "none of 12 epochs" in line.compared
        assert "fuse takes 3.3 x the multiply-adds of none of 12 epochs" in line.compared


def test_controls_of_a_schedule_have_lines_of_their_own():
    arms = [{"schedule": name} for name in ("constant", "rising", "[0.1, 0.2]", "shuffled")]
    frame = sweep(random.Random(5), lambda n, m: 0.9 + 0.02 * (n % 2), arms, [0.1, 0.3])
    lines = [claim for claim in claims(frame) if claim.claim == "A3"]
    assert sorted(line.verdict for line in lines) == ["control", "control", "undecided"]
    reasons = {line.verdict: line.compared for line in lines if line.verdict != "control"}
    assert reasons["undecided"].startswith("[0.1, 0.2] at")
    assert all(line.p < 0.05 for line in lines if line.verdict == "control")
    only = frame[frame["schedule"].isin(["constant", "rising", "shuffled"])]
    assert verdict(only, "A3").verdict == "not tested"


def test_difficulty_that_orders_accuracy_is_a_rank_correlation():
    frame = sweep(random.Random(9), lambda n, m: 0.9 - 0.1 * m, WIDTHS[:1])
    frame["difficulty"] = [1 + m for m in frame["magnitude"]]
    claim = verdict(frame, "C1")
    assert claim.verdict == "supported"
    assert claim.effect.estimate.effect > 0.9
    frame["difficulty"] = -frame["difficulty"]
    assert verdict(frame, "C1").verdict == "contradicted"
    # few policies of each of two spaces are ranked together
    arms = [{"policy": f"space{n}", "calibrated": bool(n)} for n in range(2)]
    frame = sweep(random.Random(9), lambda n, m: 0.9 - 0.1 * m, arms, MAGNITUDES[:3])
    frame["difficulty"] = [
        1 + m + 0.01 * k for m, k in zip(frame["magnitude"], frame["calibrated"])
    ]
    assert verdict(frame.assign(epochs=5), "C1").compared == "rank correlation over 6 policies"


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
    claim = verdict(pd.concat([frame, none], ignore_index=True).assign(trial=None), "C2")
    assert claim.verdict == "supported"
    assert "(4 arms)" in claim.compared
    assert re.match(r"calibrated at 0\.\d against uncalibrated at 0\.\d", claim.compared)


def test_groups_are_tested_apart_and_corrected_together():
    parts = [
        sweep(random.Random(n), shifting(0.1 if n else 0.0), WIDTHS, family=family, dataset="d")
        for n, family in enumerate(["alike", "moving"])
    ]
    frame = pd.concat(parts, ignore_index=True).assign(trial=None)
    alike, moving = (claim for claim in claims(frame) if claim.claim == "A1")
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
    reasons = {claim.claim: claim.compared for claim in claims(one)}
    assert {claim.verdict for claim in claims(one)} == {"not tested"}
    assert "at least two sizes" in reasons["A1"]
    assert "differ in schedule" in reasons["A3"]
    nothing = sweep(random.Random(0), one_optimum, WIDTHS)
    nothing = nothing.assign(state="waiting", val_top1=math.nan, test_top1=math.nan)
    assert "that are done" in verdict(nothing, "A1").compared


def test_one_seed_decides_nothing():
    frame = sweep(random.Random(0), shifting(0.1), WIDTHS, seeds=1)
    claim = verdict(frame, "A1")
    assert claim.verdict == "undecided"
    assert "one seed" in claim.compared
    assert "±" not in "".join(claims_table([claim], []).rows[0])
