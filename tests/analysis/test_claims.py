"""The claims on simulated sweeps: planted effects are found, flat ones are left alone."""

import math
import random
import re

import pandas as pd
import pytest
from simulated import SPARSITIES, WIDTHS, sweep, verdict

from analysis.claims import claims, claims_table
from analysis.columns import METRICS


def shifting(step):
    """The optimum moves by one grid step a size, inside; four steps off cost two points."""
    first = 0.2 if step > 0 else 0.5
    return lambda number, m: 0.9 - 0.02 * ((m - first - step * number) / 0.4) ** 2


def one_optimum(number, magnitude):
    return 0.8 + 0.02 * number - 0.01 * ((magnitude - 0.4) / 0.4) ** 2


@pytest.mark.parametrize(("name", "arms", "step"), [("A1", WIDTHS, 0.1), ("A2", SPARSITIES, -0.1)])
def test_the_effect_is_the_drift_of_the_optimum_in_the_direction_predicted(name, arms, step):
    line = verdict(sweep(random.Random(1), shifting(step), arms), name)
    assert line.verdict == "supported"
    estimate = line.effect.estimate
    assert estimate.low < 0.1 < estimate.high
    assert estimate.low > 0
    against = verdict(sweep(random.Random(1), shifting(-step), arms), name)
    assert against.verdict == "contradicted"
    assert against.effect.estimate.effect == pytest.approx(-0.1, abs=0.04)


def test_none_is_a_level_of_the_order(planted):
    curves = {0.5: (0.80, 0.79, 0.75, 0.60), 2.0: (0.90, 0.89, 0.88, 0.86)}
    line = verdict(planted(curves, spread=0.002), "A1")
    assert line.verdict == "undecided"
    assert line.effect.estimate.low < 0 < line.effect.estimate.high
    assert 0 < line.detectable < 0.5
    curves = {0.5: (0.82, 0.80, 0.75, 0.60), 2.0: (0.85, 0.87, 0.90, 0.88)}
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


def test_a_size_that_has_hardly_begun_does_not_stop_the_others():
    frame = sweep(random.Random(3), shifting(0.1), WIDTHS)
    begun = frame[(frame["width"] < 8) | (frame["magnitude"] == 0.0)]
    claim = verdict(begun, "A1")
    assert "(3 sizes, 8 magnitudes)" in claim.effect.compared
    assert claim.verdict == "supported"


def schedules(chance, gain, **constant):
    arms = [{"schedule": "constant"}, {"schedule": "falling"}]
    return sweep(chance, lambda n, m: 0.9 + gain * n, arms, [0.1, 0.3, 0.5], **constant)


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


def test_strength_harms_the_smallest_and_helps_the_largest():
    slopes = {"both": (-0.02, -0.01), "crossed": (-0.02, 0.02), "against": (0.02, -0.02)}
    verdicts = {}
    for name, (small, large) in slopes.items():
        frame = sweep(
            random.Random(3),
            lambda n, m, s=small, x=large: 0.9 + (x if n == 3 else s) * (m != "none"),
            WIDTHS,
            ["none", 0.2, 0.6],
        )
        verdicts[name] = verdict(frame, "B1").verdict
    assert verdicts == {"both": "undecided", "crossed": "supported", "against": "contradicted"}


def test_a_data_set_with_one_size_has_no_smallest_and_largest():
    frame = sweep(random.Random(3), lambda n, m: 0.9 - 0.02 * n * m, WIDTHS[:3], [0.2, 0.6])
    frame["dataset"] = frame["width"].map({1.0: "a", 2.0: "a", 4.0: "b"})
    both, one = claims(frame, names=["B1"])
    assert (both.group, both.verdict) == ("dataset a", "undecided")
    assert (one.group, one.verdict) == ("dataset b", "not tested")


def test_rows_without_a_size_are_not_the_smallest_and_sizes_may_cost_more():
    frame = sweep(random.Random(3), shifting(0.1), WIDTHS)
    frame = frame.assign(train_macs=1e9 * frame["width"])
    assert "multiply-adds" not in verdict(frame, "B1").compared  # larger sizes need more by nature
    frame.loc[frame["width"] == 8, "width"] = math.nan
    assert "(3 sizes, 8 magnitudes)" in verdict(frame, "A1").compared
    assert "at width -" not in verdict(frame, "B1").compared


def test_none_and_zero_are_one_place_of_a_curve():
    frame = sweep(random.Random(3), lambda n, m: 0.9, WIDTHS, ["none", 0.0, 0.3])
    assert verdict(frame, "A1").verdict == "not tested"


def test_controls_of_a_schedule_have_lines_of_their_own():
    arms = [{"schedule": name} for name in ("constant", "rising", "[0.1, 0.2]", "shuffled")]
    frame = sweep(random.Random(5), lambda n, m: 0.9 + 0.02 * (n % 2), arms, [0.1, 0.3])
    lines = [claim for claim in claims(frame) if claim.claim == "A3"]
    assert [line.verdict for line in lines][:3] == ["undecided", "control", "control"]
    assert all(line.compared.startswith("[0.1, 0.2] at") for line in lines)
    for line, kind in zip(lines[1:3], ("rising", "shuffled"), strict=True):
        assert f"against {kind} at" in line.compared
        assert line.p < 0.05
        assert line.effect.estimate.effect < 0
    only = frame[frame["schedule"].isin(["constant", "rising", "shuffled"])]
    assert verdict(only, "A3").verdict == "not tested"


def test_a_schedule_is_also_compared_with_the_constant_of_its_mean():
    chance, arms = random.Random(5), [{"schedule": "constant"}, {"schedule": "falling"}]
    frame = sweep(chance, lambda n, m: 0.9 + 0.02 * n - 0.05 * m, arms, [0.1, 0.5])
    frame = frame[(frame["schedule"] == "constant") | (frame["magnitude"] == 0.5)]
    first, control = (claim for claim in claims(frame) if claim.claim == "A3")
    assert first.compared.startswith("falling at 0.5 against constant at 0.1")
    assert control.compared.startswith("falling at 0.5 against constant at 0.5")
    assert control.verdict == "control"
    assert control.effect.estimate.effect == pytest.approx(0.02, abs=0.005)


def test_difficulty_counts_at_equal_magnitude():
    policies = [{"policy": name} for name in "abcdefgh"]
    magnitudes = [0.2, 0.4, 0.6]

    def measured(frame, harder):
        numbers = frame["policy"].map("abcdefgh".index)
        return frame.assign(difficulty=1 + frame["magnitude"] + harder * numbers)

    frame = sweep(random.Random(9), lambda n, m: 0.9 - 0.1 * m - 0.01 * n, policies, magnitudes)
    line = verdict(measured(frame, 0.05), "C1")
    assert line.verdict == "supported"
    assert line.effect.estimate.effect > 0.9
    assert re.match(
        r"rank correlation at equal magnitude \(8 policies, 24 points\); \+0\.\d+", line.compared
    )
    assert 0.5 < line.detectable < 1  # also where the correlation that was seen is perfect
    few = verdict(measured(frame[frame["policy"] < "d"], 0.05), "C1")
    assert few.p < 0.05
    assert few.verdict == "undecided"  # the nine points of three policies are not independent
    assert "no verdict: it needs 7 policies" in few.compared
    # two degrees of freedom are the magnitude's
    five = frame[(frame["policy"] < "c") & ((frame["policy"] == "a") | (frame["magnitude"] < 0.5))]
    assert verdict(measured(five, 0.05), "C1").compared == (
        "it needs 6 policies or magnitudes with a difficulty, and has 5"
    )
    against = verdict(measured(frame, -0.05), "C1")
    assert against.verdict == "undecided"
    assert "does not refute" in against.compared
    # a difficulty that follows from the magnitude says nothing that the magnitude does not
    assert verdict(measured(frame, 0.0), "C1").verdict == "not tested"


def test_images_that_a_teacher_selects_are_compared_with_all():
    arms = [
        {"teacher.candidates": 1, "teacher.target": None, "teacher.cap": None},
        {"teacher.candidates": 4, "teacher.target": 0.5, "teacher.cap": None},
        {"teacher.candidates": 1, "teacher.target": None, "teacher.cap": 1.5},
    ]
    frame = sweep(random.Random(4), lambda n, m: 0.9 + 0.02 * (n == 1), arms, [0.5])
    line = verdict(frame, "C3")
    assert line.verdict == "supported"
    assert line.compared.startswith("candidates 4 target 0.5 at 0.5 against all images at 0.5")


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


def test_too_many_sizes_are_not_taken_for_too_few():
    frame = sweep(random.Random(0), one_optimum, [{"width": float(w)} for w in range(501)])
    assert "500 sizes, not 501" in verdict(frame, "A1").compared


def test_one_seed_decides_nothing():
    frame = sweep(random.Random(0), shifting(0.1), WIDTHS, seeds=1)
    claim = verdict(frame, "A1")
    assert claim.verdict == "undecided"
    assert "one seed" in claim.compared
    assert "(4 sizes, 8 magnitudes)" in claim.compared
    assert "±" not in "".join(claims_table([claim], []).rows[0])
