"""Plans: made by hand, printed, replayed, saved; a damaged file gets a sentence, never a crash."""

import io

import numpy as np
import pytest
import torch

from harness.augment.executors import apply
from harness.augment.ops import CODES, OPS
from harness.augment.plan import Plan
from harness.augment.policy import parse_policy
from harness.errors import UserError

IDS = np.arange(40)
DRAWN = parse_policy("uniform(n=3, m=0.8, fill=10/20/30)")  # every kind of op, boxes too


def parts(path):
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


def test_a_plan_by_hand_says_what_it_does():
    plan = Plan.of([[("Rotate", 12.4)], [("Posterize", 4), ("Color", 1.3)], []])
    assert len(plan) == 3
    assert plan.records(0) == [("Rotate", 12.4)]
    assert plan.records(1) == [("Posterize", 4), ("Color", 1.3)]
    assert plan.records(-1) == []
    lines = str(plan).splitlines()
    assert lines[1:] == ["0: Rotate 12.4 degrees", lines[2], "2: unchanged"]
    assert "Posterize 4 bits kept; Color 1.3 factor" in lines[2]


def test_shares_of_the_side_become_whole_pixels():
    policy = parse_policy("randaug(n=1, m=1)")
    plan = policy.draw(0, 0, np.arange(200))
    i = int(np.flatnonzero(plan.ops[0] == CODES["TranslateXRel"])[0])
    ((name, value),) = plan.records(i, size=(20, 331))
    assert (name, abs(value)) == ("TranslateX", 150.0)
    with pytest.raises(UserError, match="share of the width"):
        plan.records(i)


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
def test_a_record_that_no_op_takes_gets_a_sentence(records, word):
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
def test_what_is_no_list_of_records_gets_a_sentence(samples, word):
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
def test_arrays_that_make_no_plan_get_a_sentence(parts, word):
    with pytest.raises(UserError, match=word):
        Plan(*parts)


def test_a_saved_plan_gives_the_same_pixels(tmp_path, pictures, by_pillow):
    images = pictures(47, 61)[IDS % 6]
    plan = DRAWN.draw(0, 0, IDS)
    plan.save(tmp_path / "plan.npz")
    loaded = Plan.load(tmp_path / "plan.npz")
    assert str(loaded) == str(plan)
    assert torch.equal(apply(images, loaded), apply(images, plan))
    assert torch.equal(apply(images, loaded), by_pillow(images, loaded))
    assert (tmp_path / "plan.npz").stat().st_size < 100 * len(plan)  # three ops and boxes each


def test_a_plan_of_a_version_with_other_ops_is_read_by_name(tmp_path):
    path = tmp_path / "plan.npz"
    plan = DRAWN.draw(0, 0, IDS)
    plan.save(path)
    turned = list(reversed(OPS))
    saved = parts(path)
    np.savez(path, **{**saved, "names": turned, "ops": len(OPS) - 1 - saved["ops"]})
    assert str(Plan.load(path)) == str(plan)
    saved["names"][saved["ops"][0, 0]] = "Swirl"
    np.savez(path, **saved)
    with pytest.raises(UserError, match="unknown op 'Swirl'"):
        Plan.load(path)


def test_every_value_of_a_file_is_checked(tmp_path):
    path = tmp_path / "plan.npz"
    Plan.of([[("Posterize", bits)] for bits in (4, 6, 8)]).save(path)
    saved = parts(path)
    saved["values"][0, 1] = 4.5
    np.savez(path, **saved)
    with pytest.raises(UserError, match="whole number"):
        Plan.load(path)


def test_a_damaged_file_gets_a_sentence(tmp_path):
    path = tmp_path / "plan.npz"
    DRAWN.draw(0, 0, IDS).save(path)
    whole = path.read_bytes()
    random = np.random.default_rng(0)
    broken = [whole[:cut] for cut in (0, 10, 100, len(whole) // 2, len(whole) - 5)]
    for place in random.integers(0, len(whole), 200):
        broken.append(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :])
    sentences = []
    for content in broken:
        path.write_bytes(content)
        try:
            Plan.load(path)
        except UserError as error:
            sentences.append(str(error))
    assert len(sentences) > 150  # dates and the like of the archive may be anything
    assert all(str(path) in sentence for sentence in sentences)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"values": lambda v: v * np.nan}, "not nan"),
        ({"values": lambda v: v * 1e9}, "takes"),
        ({"values": lambda v: v[:1]}, "do not fit"),
        ({"values": lambda v: v.astype(str)}, "is not a plan"),
        ({"boxes": lambda b: b * np.nan}, "boxes"),
        ({"boxes": lambda b: b[:, :1]}, "boxes"),
        ({"boxes": lambda b: b[:0]}, "boxes"),
        ({"ops": lambda o: o.astype(np.int64) - 50}, "do not fit"),
        ({"ops": lambda o: o.astype(np.int64) + 50}, "is not a plan"),
        ({"ops": lambda o: o.astype(float)}, "is not a plan"),
        ({"fill": lambda f: f.astype(int) + 300}, "from 0 to 255"),
        ({"interpolation": lambda i: np.array("cubic")}, "interpolation"),
        ({"names": lambda n: n.astype(object)}, "is not a plan"),
    ],
)
def test_a_forged_file_gets_a_sentence(tmp_path, changes, word):
    path = tmp_path / "plan.npz"
    DRAWN.draw(0, 0, IDS).save(path)
    saved = parts(path)
    buffer = io.BytesIO()
    np.savez(buffer, **{**saved, **{name: edit(saved[name]) for name, edit in changes.items()}})
    path.write_bytes(buffer.getvalue())
    with pytest.raises(UserError, match=word):
        Plan.load(path)
