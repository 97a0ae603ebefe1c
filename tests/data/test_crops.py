"""Boxes of crops are those of torchvision and FFCV, and depend only on seed, epoch and sample."""

import math

import numpy as np
import pytest
import torch
from torchvision.transforms import RandomResizedCrop

from harness import rng
from harness.data.crops import RATIO, centre, random_resized, side_at, whole

IDS = np.arange(3000, dtype=np.int64) * 7
RNG = np.random.default_rng(0)
HEIGHTS = RNG.integers(1, 600, len(IDS))
WIDTHS = RNG.integers(1, 600, len(IDS))


def reference(seed, epoch, sample, height, width, scale):
    """Return the box of one sample, computed as in torchvision's `RandomResizedCrop.get_params`."""
    draws = rng.uniform(seed, "resized_crop", epoch, np.array([sample]), 40)[0]
    for area, ratio, top, left in draws.reshape(10, 4):
        area = height * width * (scale[0] + (scale[1] - scale[0]) * area)
        low, high = math.log(3 / 4), math.log(4 / 3)
        ratio = math.exp(low + (high - low) * ratio)
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return int(top * (height - h + 1)), int(left * (width - w + 1)), h, w
    if width / height < 3 / 4:
        w, h = width, round(width / (3 / 4))
    elif width / height > 4 / 3:
        w, h = round(height * (4 / 3)), height
    else:
        w, h = width, height
    return (height - h) // 2, (width - w) // 2, h, w


@pytest.mark.parametrize("scale", [(0.08, 1.0), (0.9, 1.0), (0.35, 0.35)])
def test_boxes_are_those_of_the_reference_for_each_sample(scale):
    boxes = random_resized(3, 5, scale)(IDS, HEIGHTS, WIDTHS)
    for i in range(len(IDS)):
        expected = reference(3, 5, IDS[i], int(HEIGHTS[i]), int(WIDTHS[i]), scale)
        assert tuple(boxes[i]) == expected, i


@pytest.mark.parametrize("crop", [random_resized(0, 0, (0.08, 1.0)), centre, whole])
def test_a_box_lies_within_its_image_and_does_not_depend_on_its_batch(crop):
    boxes = crop(IDS, HEIGHTS, WIDTHS)
    top, left, height, width = boxes.T
    assert (np.minimum(top, left) >= 0).all()
    assert (np.minimum(height, width) >= 1).all()
    assert (top + height <= HEIGHTS).all()
    assert (left + width <= WIDTHS).all()
    some = RNG.permutation(len(IDS))[:100]
    assert np.array_equal(crop(IDS[some], HEIGHTS[some], WIDTHS[some]), boxes[some])


def test_random_boxes_have_torchvisions_areas_and_change_with_epoch_and_seed():
    same = np.full(len(IDS), 400)
    boxes = random_resized(0, 0, (0.08, 1.0))(IDS, same, same)
    share = boxes[:, 2] * boxes[:, 3] / 400**2
    assert share.min() == pytest.approx(0.08, abs=0.01)
    assert share.max() > 0.95
    image = torch.zeros(1, 400, 400)
    torch.manual_seed(0)
    theirs = [RandomResizedCrop.get_params(image, (0.08, 1.0), RATIO) for _ in range(3000)]
    assert share.mean() == pytest.approx(
        np.mean([h * w / 400**2 for _, _, h, w in theirs]), abs=0.02
    )
    free = 400 - boxes[:, 2] > 50
    position = boxes[free, 0] / (400 - boxes[free, 2])
    quarters = np.histogram(position, 4, (0, 1))[0] / free.sum()
    assert quarters == pytest.approx([0.25] * 4, abs=0.04)
    for other in (random_resized(0, 1, (0.08, 1.0)), random_resized(1, 0, (0.08, 1.0))):
        assert (other(IDS, same, same) != boxes).any(axis=1).mean() > 0.99


def test_a_centre_crop_is_seven_eighths_of_the_shorter_side():
    boxes = centre(np.arange(2), np.array([256, 300]), np.array([512, 200]))
    assert boxes.tolist() == [[16, 144, 224, 224], [62, 12, 175, 175]]


def test_training_images_grow_in_steps_of_32_pixels_and_end_at_full_size():
    sides = [side_at(epoch, 16, 224, 128, (0.4, 0.8)) for epoch in range(16)]
    assert sides[:7] == [128] * 7
    assert sides[13:] == [224] * 3
    assert sides == sorted(sides)
    assert {side % 32 for side in sides} == {0}
    assert len(set(sides)) == 4
    assert {side_at(epoch, 16, 224, None, (0.4, 0.8)) for epoch in range(16)} == {224}
    assert side_at(9, 10, 50, 40, (0.5, 0.9)) == 50
