"""Claim B2 on simulated sweeps: what a form of surplus must beat."""

import math
import random
import re

import pandas as pd
import pytest
from simulated import sweep, verdict

from analysis.claims import claims


def test_surplus_that_takes_the_harm_away_is_an_interaction():
    arms = [{"surplus": "none"}, {"surplus": "slice"}, {"surplus": "fuse"}]
    harm = {0: 0.03, 1: 0.0, 2: 0.03}
    frame = sweep(random.Random(8), lambda n, m: 0.9 - harm[n] * m, arms, [0.0, 1.0])
    fused, sliced = (claim for claim in claims(frame) if claim.claim == "B2")
    assert (sliced.verdict, fused.verdict) == ("supported", "undecided")
    assert sliced.effect.estimate.effect == pytest.approx(0.03, abs=0.01)


def test_a_form_that_is_worse_everywhere_does_not_help():
    """It loses less to strength than the plain model does, and nobody would use it."""
    arms = [{"surplus": "none"}, {"surplus": "slice"}]
    for level, reason in ((-0.05, "-2.0 ± .* against none at 0.6"), (-0.01, "")):
        frame = sweep(
            random.Random(8),
            lambda n, m, level=level: 0.9 + (level if n else -0.03 * (m != "none")),
            arms,
            ["none", 0.6],
        )
        line = verdict(frame, "B2")
        assert line.effect.estimate.effect == pytest.approx(0.03, abs=0.01)
        assert line.verdict == "undecided"
        assert re.search(reason, line.compared)
    assert (
        "-1.1 ± 0.4 against none at none" in line.compared
    )  # below the plain model at the weak magnitude


def surplus_sweep(chance, harm, stages=None, **constant):
    """Arms of `surplus` at magnitudes none and 0.6; `harm[form]`: what strength costs it."""
    arms = [{"surplus": form, "form": form} for form in harm]
    costs = list(harm.values())
    frame = sweep(chance, lambda n, m: 0.9 - costs[n] * (m != "none"), arms, ["none", 0.6])
    return frame.assign(epochs=12, **constant)


def test_a_form_must_beat_its_control_too():
    # surplus does nothing, the weak end does all
    frame = surplus_sweep(random.Random(8), {"none": 0.03, "prune_away": 0.0, "weak_finish": 0.0})
    (line,) = (claim for claim in claims(frame) if claim.claim == "B2")
    assert line.verdict == "undecided"
    assert line.compared.startswith("prune_away against weak_finish")
    assert "against none +3.1 ±" in line.compared
    frame = surplus_sweep(random.Random(8), {"none": 0.03, "prune_away": 0.0, "weak_finish": 0.03})
    assert verdict(frame, "B2").verdict == "supported"
    started = (frame["surplus"] == "weak_finish") & (frame["magnitude"] == 0.6)
    frame.loc[started, ["state", "val_top1", "test_top1"]] = ["waiting", math.nan, math.nan]
    open_ = verdict(frame, "B2")
    assert open_.verdict == "undecided"
    assert "its control weak_finish is not done" in open_.compared
    without = verdict(frame[frame["surplus"] != "weak_finish"], "B2")
    assert without.verdict == "supported"
    assert without.compared == "prune_away against none, magnitude none to 0.6"


def test_cells_of_the_same_stages_count_once():
    frame = surplus_sweep(random.Random(8), {"none": 0.03, "prune_away": 0.0})
    weak = frame["magnitude"] == "none"
    shared = frame[weak & (frame["surplus"] == "none")]
    scores = ["val_top1", "test_top1"]
    frame.loc[weak & (frame["surplus"] == "prune_away"), scores] = shared[scores].to_numpy()
    apart = verdict(frame, "B2").effect.estimate
    cells = zip(frame["magnitude"], frame["seed"], frame["surplus"], strict=True)
    stages = [f"{m}-{s}" if m == "none" else f"{m}-{s}-{form}" for m, s, form in cells]
    once = verdict(frame.assign(stage=stages), "B2").effect.estimate
    assert once.effect == pytest.approx(apart.effect)
    strong = [frame.loc[~weak & (frame["surplus"] == form), "test_top1"] for form in
              ("prune_away", "none")]  # fmt: skip
    assert once.effect == pytest.approx(strong[0].mean() - strong[1].mean())
    assert once.error < apart.error


def test_arms_of_other_epochs_are_controls_of_equal_work():
    frame = surplus_sweep(random.Random(8), {"none": 0.03, "fuse": 0.0})
    frame["train_macs"] = [100 if form == "none" else 330 for form in frame["surplus"]]
    assert "fuse takes 3.3 x the multiply-adds of none" in verdict(frame, "B2").compared
    longer = frame[frame["surplus"] == "none"].assign(epochs=36, train_macs=300, trial=None)
    for loss, word in ((0.0, "supported"), (0.06, "undecided")):
        strong = longer["magnitude"] == 0.6
        other = longer.assign(
            val_top1=longer["val_top1"] + loss / 2 * strong,
            test_top1=longer["test_top1"] + loss / 2 * strong,
        )
        (line,) = (
            c for c in claims(pd.concat([frame, other], ignore_index=True)) if c.claim == "B2"
        )
        assert line.verdict == word
        assert "none of 36 epochs" in line.compared
        assert "none of 12 epochs" in line.compared
        assert "fuse takes 3.3 x the multiply-adds of none of 12 epochs" in line.compared
