"""Difficulty: planted truths, intervals, calibrated spaces."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml

from harness import config
from harness.augment.batch_transform import BatchTransform
from harness.augment.calibrate import calibrated, rescaled, targets
from harness.augment.policy import parse_policy
from harness.augment.spaces import SPACES, Row, find_space, load_space
from harness.commands import difficulty_report
from harness.commands.difficulty_measure import table_of
from harness.errors import UserError
from harness.store.claims import try_claim
from harness.store.store import Store
from harness.sweep.plan import make_plan
from harness.train.difficulty import MEASURES, Difficulty, Images, measure, op_policies
from harness.train.teacher import Teacher

MAGNITUDES = tuple(at / 10 for at in range(11))


class Brightest(torch.nn.Module):
    """Classes are levels of brightness, which Solarize destroys and geometry does not."""

    def forward(self, x):
        level = x.mean((1, 2, 3))[:, None] * 10
        return -((level - torch.arange(10) - 0.5) ** 2)


TEACHER = Teacher(Brightest(), BatchTransform(mean=(0.0,) * 3, std=(1.0,) * 3))


@pytest.fixture(scope="module")
def images():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(200) % 10
    levels = 25.5 * (labels[:, None, None, None] + 0.5)
    noise = torch.randint(-8, 9, (200, 3, 16, 16), generator=generator)
    pixels = (levels + noise).clamp(0, 255).to(torch.uint8)
    return Images(pixels, labels, np.arange(200))


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A space of ops that keep the label, and one, Solarize, that destroys it."""
    path = tmp_path_factory.mktemp("space") / "planted.yaml"
    ops = {
        "Identity": {},
        "Sharpness": {"values": [1.0, 1.9], "signed": True},
        "Color": {"values": [1.0, 1.9], "signed": True},
        "Posterize": {"values": [8, 4]},
        "Rotate": {"values": [0, 10], "signed": True},
        "Solarize": {"values": [256, 0]},
    }
    path.write_text(yaml.safe_dump({"ops": ops, "n": 1}))
    return path


@pytest.fixture(scope="module")
def difficulties(table, images):
    return list(measure(TEACHER, images, op_policies(f"{table}(n=1)", MAGNITUDES), 2))


def curves(difficulties):
    losses = {}
    for difficulty in difficulties:
        losses.setdefault(difficulty.op, []).append(difficulty.means["loss"])
    return losses


def test_an_op_that_destroys_the_label_is_ranked_first(difficulties):
    strongest = {
        difficulty.op: difficulty.means
        for difficulty in difficulties
        if difficulty.magnitude == 1.0
    }
    for measured in ("loss", "kl"):
        assert max(strongest, key=lambda op: strongest[op][measured]) == "Solarize"
    for measured in ("accuracy", "true_prob"):
        assert min(strongest, key=lambda op: strongest[op][measured]) == "Solarize"
    assert strongest["Solarize"]["accuracy"] < 0.2 < 0.9 < strongest["Color"]["accuracy"]


def test_at_the_weakest_magnitude_nothing_is_difficult(difficulties, images):
    weakest = [difficulty for difficulty in difficulties if difficulty.magnitude == 0.0]
    (clean,) = measure(TEACHER, images, [("clean", 0.0, parse_policy("none"))], 1)
    for difficulty in weakest:
        assert difficulty.means == pytest.approx(clean.means)
    assert clean.means["kl"] == 0.0
    assert clean.means["accuracy"] == 1.0


def test_the_calibrated_space_weakens_the_op_that_destroys_the_label(
    difficulties, table, images, tmp_path
):
    space = find_space(str(table))
    path = tmp_path / "calibrated.yaml"
    path.write_text(
        yaml.safe_dump(calibrated(space, curves(difficulties), MAGNITUDES, "brightest"))
    )
    again = load_space(path)
    assert again.source.startswith("calibrated on brightest")
    rows = {row.op: row for row in again.rows}
    assert min(rows["Solarize"].values) > 150  # from 256: few pixels are as bright
    assert rows["Rotate"].values[-1] <= 10
    policies = op_policies(f"{path}(n=1)", (0.5, 1.0))
    flat = list(measure(TEACHER, images, policies, 2))
    before = {
        (difficulty.op, difficulty.magnitude): difficulty.means["loss"]
        for difficulty in difficulties
    }
    after = {(difficulty.op, difficulty.magnitude): difficulty.means["loss"] for difficulty in flat}
    assert after["Solarize", 1.0] < 0.2 * before["Solarize", 1.0]
    for m in (0.5, 1.0):
        spread_before = np.ptp([before[op, m] for op in curves(difficulties)])
        assert np.ptp([after[op, m] for op in curves(difficulties)]) < 0.5 * spread_before


def test_equal_magnitude_is_equal_loss_where_curves_are_known():
    curves = {"Rotate": [0.0, 1.0, 2.0], "ShearX": [0.0, 2.0, 4.0], "ShearY": [0.0, 4.0, 8.0]}
    at = (0.0, 0.5, 1.0)
    assert targets(curves) == [0.0, 2.0, 4.0]
    assert rescaled(curves["ShearX"], [0.0, 2.0, 4.0], at) == [0.0, 0.5, 1.0]
    assert rescaled(curves["ShearY"], [0.0, 2.0, 4.0], at) == [0.0, 0.25, 0.5]
    assert rescaled(curves["Rotate"], [0.0, 2.0, 4.0], at) == [0.0, 1.0, 1.0]  # its strongest
    assert rescaled([0.0, 3.0, 1.0], [0.0, 2.0, 4.0], at) == pytest.approx([0.0, 1 / 3, 1.0])
    space = SPACES["randaug"]
    some = {row.op: [0.0, 1.0, 2.0] for row in space.rows}
    made = calibrated(space, some, at, "nobody")["ops"]
    for row in space.rows:
        if row.op != "Identity":
            same = Row(row.op, tuple(made[row.op]["values"]), row.signed, row.rounding)
            assert np.allclose(np.interp(0.5, np.linspace(0, 1, 11), same.values),
                               np.interp(0.5, np.linspace(0, 1, len(row.values)), row.values),
                               atol=0.51 if row.rounding != "none" else 1e-5)  # fmt: skip


def test_a_space_of_chains_cannot_be_calibrated():
    with pytest.raises(UserError, match="made of chains"):
        calibrated(SPACES["autoaugment_cifar10"], {}, MAGNITUDES, "nobody")


def test_intervals_hold_the_truth_as_often_as_they_say(table):
    """The whole is 4,000 images; intervals from 100 of them."""
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(0, 10, (4000,), generator=generator)
    levels = 25.5 * (labels[:, None, None, None] + 0.5)
    noise = 25.0 * torch.randn((4000, 1, 1, 1), generator=generator)
    pixels = (levels + noise).clamp(0, 255).to(torch.uint8).expand(-1, 3, 4, 4).contiguous()
    policy = [("Identity", 0.0, parse_policy("none"))]
    whole = Images(pixels, labels, np.arange(4000))
    (truth,) = measure(TEACHER, whole, policy, 1)
    inside = dict.fromkeys(MEASURES, 0)
    for begin in range(0, 4000, 100):
        part = slice(begin, begin + 100)
        some = Images(pixels[part], labels[part], np.arange(4000)[part])
        (measured,) = measure(TEACHER, some, policy, 1)
        for name in MEASURES:
            off = abs(measured.means[name] - truth.means[name])
            inside[name] += off <= measured.half_widths[name] + 1e-12
    assert all(35 <= number <= 40 for number in inside.values()), inside


def test_each_measure_s_rank_correlation_with_accuracy_is_told_for_each_size(tmp_path):
    path = tmp_path / "planted.yaml"
    path.write_text(
        "defaults: [{override /dataset: digits}, {override /recipe: quick}]\nmodel: {depth: 8}\n"
        "axes: {width: [0.5, 1], magnitude: [none, 0.1, 0.3, 0.5, 0.7], seed: [0, 1]}\n"
    )
    launch = config.load([f"grid={path}", f"store={tmp_path}/store"])
    plan, store = make_plan(launch.grid), Store(launch.store)
    policies = sorted({stage.augment.policy for stage in plan.stages.values()})
    hard = {policy: 0.0 if policy == "none" else float(policy[-4:-1]) for policy in policies}
    for name, stage in plan.stages.items():
        claim = try_claim(store.prepare(name, stage), "test")
        top1 = 0.9 - (0.1 if stage.model.width == 1 else -0.1) * hard[stage.augment.policy]
        scores = {
            split: {"top1": top1 + 0.001 * stage.seed, "loss": 1.0} for split in ("val", "test")
        }
        store.finish(name, claim, {"status": "done", "timing": {"gpu_seconds": 1.0}, **scores})
        claim.release()
    signs = {"loss": 1, "accuracy": -1, "true_prob": -1, "kl": 1, "spread": 1}
    said = {name: {key: sign * m for key, sign in signs.items()} for name, m in hard.items()}
    lines = table_of(Difficulty(name, math.nan, means, {}) for name, means in said.items())
    found = difficulty_report.correlations(launch, lines)
    narrow, wide = difficulty_report.describe_correlations(found)
    assert "width 0.5: loss +1.00, accuracy -1.00, true_prob -1.00, kl +1.00" in narrow
    assert "width 1.0: loss -1.00, accuracy +1.00, true_prob +1.00, kl -1.00" in wide
    few = replace(launch, grid=replace(launch.grid, trials=launch.grid.trials[:4]))
    found = difficulty_report.correlations(few, lines)
    assert found[["policies", "loss"]].values.tolist() == [[2, None]]
    (said,) = difficulty_report.describe_correlations(found)
    assert "not computed, 2 of at least 5 policies are done" in said
