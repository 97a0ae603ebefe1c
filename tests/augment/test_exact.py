"""Both executors give Pillow's pixels to the bit, for each op alone and for drawn policies."""

import numpy as np
import pytest
import torch
from pictures import halves
from PIL import Image

from harness.augment.ops import OPS, Op
from harness.augment.plan import Plan
from harness.augment.policy import parse_policy, with_magnitude
from harness.augment.replay import replay
from harness.augment.spaces import SPACES

MAGNITUDES = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
_FACTORS = (0.0, 0.1, 0.37, 0.5, 0.73, 1.0, 1.27, 1.5, 1.9, 3.0)
_WEIGHTS = (0.0, 0.1, 0.3, 0.5, 0.9, 1.0)
_SHEARS = tuple(s * v for s in (1, -1) for v in (0.01, 0.07, 0.1, 0.3, 0.99, 1.0))
_PIXELS = tuple(s * v for s in (1, -1) for v in (1, 3.4, 2.7, 5, 32, 200))
VALUES = {
    "Identity": (0,),
    "ShearX": _SHEARS,
    "ShearY": _SHEARS,
    "TranslateX": _PIXELS,
    "TranslateY": _PIXELS,
    "Rotate": (0.2, 1, 9, 30, 45, 90, 135, 180, 270, 360, 400, -0.2, -9, -30, -90, -135),
    "Brightness": _FACTORS,
    "Color": _FACTORS,
    "Contrast": _FACTORS,
    "Sharpness": _FACTORS,
    "Posterize": tuple(range(1, 9)),
    "Solarize": (0, 1, 128, 179.2, 255, 256),
    "SolarizeAdd": (0, 1, 11, 110, 255),
    "AutoContrast": _WEIGHTS,
    "Equalize": _WEIGHTS,
    "Invert": _WEIGHTS,
    "Cutout": ((0, 0, 5, 5), (3, 1, 9, 30), (0, 0, 0, 0), (1, 1, 500, 2)),
}


def _values(op: Op) -> list[float]:
    """Return values for an op that is not in VALUES, from the lowest to the highest."""
    values = np.linspace(op.low, op.high, 7)
    return sorted(set(np.rint(values))) if op.whole else values.tolist()


SIZES = [(32, 32), (47, 61), (1, 1), (1, 7), (7, 1), (2, 9), (3, 3)]


def _every_op(images: torch.Tensor, interpolation: str) -> tuple[torch.Tensor, Plan]:
    """Return a batch of each op at each value on each image, in a random order."""
    cases = [
        [(name, value)]
        for name, op in OPS.items()
        if op.relative_to is None
        for value in VALUES.get(name) or _values(op)
    ]
    records = [case for case in cases for _ in images]
    order = np.random.default_rng(0).permutation(len(records))
    plan = Plan.of([records[i] for i in order], fill=(10, 128, 200), interpolation=interpolation)
    return images.repeat(len(cases), 1, 1, 1)[torch.from_numpy(order)], plan


@pytest.fixture
def assert_pillows(by_pillow, executors):
    """A function (images, plan) that asserts that both executors give Pillow's pixels."""

    def check(images: torch.Tensor, plan: Plan) -> None:
        expected, size = by_pillow(images, plan), tuple(images.shape[2:])
        for name, execute in executors.items():
            is_wrong = (execute(images, plan) != expected).flatten(1).any(dim=1)
            wrong = is_wrong.nonzero().flatten().tolist()
            assert not wrong, (name, [plan.records(i, size=size) for i in wrong[:5]])

    return check


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_each_op_gives_pillows_pixels(pictures, assert_pillows, size, interpolation):
    assert_pillows(*_every_op(pictures(*size), interpolation))


@pytest.mark.slow
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
@pytest.mark.parametrize("size", [(64, 64), (224, 224)], ids=str)
def test_each_op_gives_pillows_pixels_in_large_images(
    pictures, assert_pillows, size, interpolation
):
    assert_pillows(*_every_op(pictures(*size), interpolation))


@pytest.mark.parametrize(
    ("op", "value", "data"),
    [
        ("ShearX", 0.3, (1, 0.3, 0, 0, 1, 0)),
        ("ShearY", 0.3, (1, 0, 0, 0.3, 1, 0)),
        ("TranslateX", 3.4, (1, 0, 3.4, 0, 1, 0)),
        ("TranslateY", 3.4, (1, 0, 0, 0, 1, 3.4)),
    ],
)
def test_shears_and_translations_replay_pillows_affine_data(pictures, op, value, data):
    image = Image.fromarray(pictures(47, 61)[2].permute(1, 2, 0).numpy().copy())
    for interpolation, resample in (("nearest", 0), ("bilinear", 2)):
        expected = image.transform(image.size, Image.Transform.AFFINE, data, resample)
        result = replay(image, [(op, value)], interpolation=interpolation)
        assert result.tobytes() == expected.tobytes()


def test_contrast_rounds_a_mean_on_a_half_as_pillow_does(assert_pillows):
    images = halves()
    for factor in (0.0, 0.3, 1.9):
        assert_pillows(images, Plan.of([[("Contrast", factor)]] * len(images)))


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in SPACES if name != "none"])
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
def test_policies_of_each_space_give_pillows_pixels(pictures, assert_pillows, name, interpolation):
    counts = (1, 2, 3) if not SPACES[name].chains else (None,)
    for size in ((32, 32), (47, 61)):
        images = pictures(*size).repeat(6, 1, 1, 1)
        for n in counts:
            for epoch, magnitude in enumerate(MAGNITUDES):
                words = [f"interpolation={interpolation}", *([f"n={n}"] if n else [])]
                text = with_magnitude(f"{name}({', '.join(words)})", magnitude)
                assert_pillows(images, parse_policy(text).draw(0, epoch, np.arange(len(images))))
