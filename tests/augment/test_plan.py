"""Plans: written by hand and printed; a mistake in one is refused with a sentence."""

import numpy as np
import pytest
from PIL import Image

from harness.augment.ops import CODES
from harness.augment.plan import Plan
from harness.augment.policy import parse_policy
from harness.augment.replay import replay
from harness.errors import UserError


def test_a_plan_by_hand_returns_and_prints_its_records():
    plan = Plan.of([[("Rotate", 12.4)], [("Posterize", 4), ("Color", 1.3)], []])
    assert len(plan) == 3
    assert plan.records(0) == [("Rotate", 12.4)]
    assert plan.records(1) == [("Posterize", 4), ("Color", 1.3)]
    assert plan.records(-1) == []
    assert str(plan).splitlines()[1:] == [
        "0: Rotate 12.4 degrees",
        "1: Posterize 4 bits kept; Color 1.3 factor",
        "2: unchanged",
    ]


def test_a_sample_that_a_plan_does_not_have_gets_a_sentence():
    plan = Plan.of([[("Rotate", 12.4)], []])
    assert plan.records(-2) == [("Rotate", 12.4)]
    for i in (2, -3):
        with pytest.raises(UserError, match=f"has samples 0 to 1, not {i}"):
            plan.records(i)


def test_shares_of_the_side_become_whole_pixels():
    policy = parse_policy("randaug(n=1, m=1)")
    plan = policy.draw(0, 0, np.arange(200))
    i = int(np.flatnonzero(plan.ops[0] == CODES["TranslateXRel"])[0])
    ((name, value),) = plan.records(i, size=(20, 331))
    assert (name, abs(value)) == ("TranslateX", 150.0)
    with pytest.raises(UserError, match="share of the width"):
        plan.records(i)
    with pytest.raises(UserError, match="Pillow takes TranslateX"):
        replay(Image.new("RGB", (8, 8)), [("TranslateXRel", 0.5)])


@pytest.mark.parametrize(
    ("records", "word"),
    [
        ([("Rotat", 3)], "did you mean 'Rotate'"),
        ([("Rotate", "far")], "takes a number"),
        ([("Rotate", float("nan"))], "degrees"),
        ([("Rotate", 10**400)], "degrees"),
        ([("ShearX", 2.5)], "from -2 to 2"),
        ([("Posterize", 0)], "from 1 to 8"),
        ([("Posterize", 2.5)], "whole number"),
        ([("Equalize", 1.5)], "from 0 to 1"),
        ([("Cutout", (5, 5, 1, 1))], "left, top, right, bottom"),
        ([("Cutout", (0, 0, 10**400, 3))], "left, top, right, bottom"),
        ([("Cutout", 3)], "left, top, right, bottom"),
        ([("CutoutRel", 0.2)], "give Cutout a box"),
    ],
)
def test_a_wrong_record_gets_a_sentence(records, word):
    with pytest.raises(UserError, match=word):
        Plan.of([records])


@pytest.mark.parametrize(
    ("samples", "word"),
    [
        ([("Rotate", 12.4)], "a record is a pair"),
        ([[("Rotate",)]], "a record is a pair"),
        ([[([], 1.0)]], "a record is a pair"),
        ([[("Rotate", 1.0)], 5], "sample 1 of a plan is a list of records"),
        ([[("Brightness", 1e39)]], "factor from 0 to 1e\\+06"),
    ],
)
def test_samples_that_are_not_lists_of_records_get_a_sentence(samples, word):
    with pytest.raises(UserError, match=word):
        Plan.of(samples)


@pytest.mark.parametrize(
    ("parts", "word"),
    [
        ((np.zeros((1, 2), np.uint8), np.zeros((1, 3))), "do not fit"),
        ((np.zeros((1, 2), np.int64), np.zeros((1, 2))), "uint8"),
        ((np.zeros(2, np.uint8), np.zeros(2)), "uint8"),
        ((np.full((1, 2), 99, np.uint8), np.zeros((1, 2))), "positions in the op table"),
        ((np.full((1, 2), CODES["Cutout"], np.uint8), np.zeros((1, 2))), "boxes are missing"),
        ((np.zeros((1, 2), np.uint8), np.zeros((1, 2)), np.zeros((1, 2))), "boxes do not fit"),
    ],
)
def test_arrays_that_do_not_form_a_plan_get_a_sentence(parts, word):
    with pytest.raises(UserError, match=word):
        Plan(*parts)
