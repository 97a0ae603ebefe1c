"""Strength grows with the magnitude from no change, and ranges are those of the libraries."""

import random

import numpy as np
import pytest
import torch
from timm.data import auto_augment as timm_augment
from torchvision.transforms import autoaugment as torchvision_augment

from harness.augment.executors import apply
from harness.augment.ops import CODES, OPS, Kind
from harness.augment.plan import Plan
from harness.augment.policy import parse_policy
from harness.augment.spaces import SPACES, Row

IDS = np.arange(14_000)
NAMED = [name for name in SPACES if name != "none"]
GRID = np.linspace(0.0, 1.0, 11)


@pytest.fixture(scope="module")
def natural():
    """Six images with the 1/f spectrum of photographs: uint8 [6, 3, 64, 64]."""
    random_state = np.random.default_rng(0)
    fy, fx = np.fft.fftfreq(64)[:, None], np.fft.fftfreq(64)[None]
    falling = 1.0 / np.maximum(np.hypot(fy, fx), 1 / 64)
    waves = np.fft.fft2(random_state.normal(size=(6, 3, 64, 64))) * falling
    images = np.fft.ifft2(waves).real
    images = 128 + 25 * images / images.std(axis=(1, 2, 3), keepdims=True)
    return torch.from_numpy(np.clip(images, 0, 255).astype(np.uint8))


def _change(images: torch.Tensor, row: Row, magnitude: float) -> float:
    """Return the mean absolute change of the pixels by one op, over both signs."""
    total = 0.0
    for sign in (1.0, -1.0):
        values = row.at(np.full((1, len(images)), magnitude), np.full((1, len(images)), sign))
        boxes = 0.5 + 0.5 * values[..., None] * np.array([-1.0, -1.0, 1.0, 1.0])
        plan = Plan(np.full(values.shape, CODES[row.op], dtype=np.uint8), values, boxes)
        total += (apply(images, plan).float() - images.float()).abs().mean().item() / 2
    return total


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMED)
def test_strength_grows_with_m_for_every_op_with_a_range(natural, name):
    for row in SPACES[name].rows:
        if len(set(row.values)) == 1:
            continue
        distance = np.abs(row.at(GRID, np.ones(len(GRID))) - row.values[0])
        steps = np.diff(distance)
        assert (steps >= 0).all(), row
        assert (steps > 0).all() or OPS[row.op].whole, row
        changes = np.array([_change(natural, row, m) for m in GRID])
        if OPS[row.op].kind == Kind.WARP:
            # The change by large translations and rotations does not grow any more: two pixels far
            # apart are unrelated at any distance, and a rotation fills most at 45 degrees.
            saturated = int(np.argmax(changes >= 0.8 * changes.max()))
            assert (changes[saturated:] >= 0.6 * changes.max()).all(), (row, changes)
            changes = changes[: saturated + 1]
        assert (np.diff(changes) >= 0).all(), (row, changes)
        assert changes[-1] > changes[0], row


def test_none_and_randaug_strict_at_zero_change_nothing(pictures):
    images = pictures(47, 61).repeat(20, 1, 1, 1)
    for text in ("none", "randaug_strict(n=3, m=0)", "randaug_strict(n=3, m=0, spread=uniform)"):
        plan = parse_policy(text).draw(0, 0, IDS[: len(images)])
        assert torch.equal(apply(images, plan), images), text


def test_each_op_whose_first_value_is_neutral_changes_nothing_at_zero(natural):
    for name in NAMED:
        for row in SPACES[name].rows:
            if row.values[0] == OPS[row.op].neutral:
                assert _change(natural, row, 0.0) == 0.0


# --- the libraries that the tables name -------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "source", "bins"),
    [
        ("randaug", torchvision_augment.RandAugment(), (31, (480, 640))),
        ("randaug_strict", torchvision_augment.RandAugment(), (31, (480, 640))),
        ("trivial_wide", torchvision_augment.TrivialAugmentWide(), (31,)),
        ("autoaugment_imagenet", torchvision_augment.AutoAugment(), (10, (480, 640))),
        ("augmix", torchvision_augment.AugMix(all_ops=False), (11, (480, 640))),
    ],
)
def test_ranges_are_those_of_torchvision(name, source, bins):
    space = source._augmentation_space(*bins)
    rows = {row.op.removesuffix("Rel"): row for row in SPACES[name].rows}
    assert set(rows) == set(space)
    magnitudes = np.arange(bins[0]) / (bins[0] - 1)
    for op, (values, signed) in space.items():
        row = rows[op]
        if values.ndim == 0:
            assert len(set(row.values)) == 1 or name == "randaug_strict"
            continue
        ours, theirs = row.at(magnitudes, np.ones(bins[0])), values.double().numpy()
        if row.op.startswith("Translate") and not row.op.endswith("Rel"):
            theirs = np.trunc(theirs + 1e-5)  # torchvision truncates the float32 value
        if row.op.endswith("Rel"):
            ours = ours * {"X": 640, "Y": 480}[op[-1]]
        if OPS[op].neutral == 1.0:
            theirs = theirs + 1.0
        if op == "Solarize":
            theirs = theirs * 256 / 255
        if (name, op) == ("augmix", "Posterize"):  # AugMix truncates, and Pillow refuses 0 bits
            theirs = np.array([4 - int(4 * m) for m in magnitudes]).clip(1)
        assert row.signed == signed, op
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5, err_msg=op)


@pytest.mark.parametrize("level", range(1, 11))
def test_ranges_are_those_of_timm(level, monkeypatch):
    hints = {"img_mean": (128, 128, 128), "translate_pct": 0.45}
    monkeypatch.setattr(random, "random", lambda: 0.0)  # positive signs
    rows = {row.op: row for row in SPACES["randaug_timm_inc"].rows}
    names = timm_augment._RAND_INCREASING_TRANSFORMS
    assert {name.removesuffix("Increasing") for name in names} == set(rows)
    for name in names:
        convert = timm_augment.LEVEL_TO_ARG[name]
        if convert is None:
            continue
        (theirs,) = convert(level, hints)
        op = name.removesuffix("Increasing")
        ours = rows[op].at(np.array([level / 10]), np.ones(1))[0]
        if op == "Posterize":
            theirs = max(1, theirs)  # Pillow refuses 0 bits
        if op == "Solarize":  # a fraction and the next whole number invert the same values
            ours = np.ceil(ours)
        assert ours == pytest.approx(theirs), name


def test_autoaugment_has_the_sub_policies_of_torchvision():
    for name, policy in (
        ("autoaugment_imagenet", torchvision_augment.AutoAugmentPolicy.IMAGENET),
        ("autoaugment_cifar10", torchvision_augment.AutoAugmentPolicy.CIFAR10),
    ):
        theirs = torchvision_augment.AutoAugment(policy).policies
        ours = SPACES[name].chains
        assert len(ours) == len(theirs) == 25
        for steps, expected in zip(ours, theirs, strict=True):
            for step, (op, p, level) in zip(steps, expected, strict=True):
                assert (step.op.removesuffix("Rel"), step.p) == (op, p)
                assert step.level == pytest.approx((level or 0) / 9)


def test_every_space_names_its_source():
    assert all(space.source for space in SPACES.values())
