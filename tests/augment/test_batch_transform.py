"""The steps around the policy of a batch: crop, flip, normalise, erase, mix, cast."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from harness.augment.batch_transform import (
    BatchTransform,
    crop_and_flip,
    eval_batch,
    normalise,
    train_batch,
)
from harness.augment.mix import erasing_boxes, mixing
from harness.augment.policy import parse_policy
from harness.errors import UserError

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
NONE = parse_policy("none")
POLICY = parse_policy("randaug_strict(n=2, m=0.5)")
EVERYTHING = BatchTransform(
    crop_padding=4, flip=True, erasing=0.5, mixup=0.8, cutmix=1.0, mean=MEAN, std=STD
)  # fmt: skip
COUNT, CLASSES = 64, 10


@pytest.fixture(scope="module")
def batch():
    random = np.random.default_rng(0)
    images = torch.from_numpy(random.integers(0, 256, (COUNT, 3, 20, 28), dtype=np.uint8))
    labels = torch.from_numpy(random.integers(0, CLASSES, COUNT))
    return images, labels, np.arange(1000, 1000 + COUNT)


def run(batch, transform, policy=NONE, epoch=0, **options):
    images, labels, ids = batch
    return train_batch(
        images, labels, ids,
        policy=policy, transform=transform, seed=0, epoch=epoch, num_classes=CLASSES, **options,
    )  # fmt: skip


def part(batch, chosen):
    return batch[0][chosen], batch[1][chosen], batch[2][chosen]


def plain(**options):
    return BatchTransform(**{"mean": MEAN, "std": STD, **options})


def test_normalising_is_the_formula(batch):
    images = batch[0]
    mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
    expected = (images.double() / 255 - mean) / std
    result = normalise(images, plain())
    assert result.dtype == torch.float32
    torch.testing.assert_close(result.double(), expected, rtol=0, atol=2e-6)
    assert torch.equal(eval_batch(images, transform=EVERYTHING), result)  # nothing else is done


def test_a_batch_may_be_cut_before_any_even_sample_and_shuffled_by_pairs(batch):
    images, targets = run(batch, EVERYTHING, POLICY)
    for start, end in ((0, 2), (10, 24), (62, 64)):
        part_images, part_targets = run(part(batch, slice(start, end)), EVERYTHING, POLICY)
        assert torch.equal(part_images, images[start:end])
        assert torch.equal(part_targets, targets[start:end])
    pairs = np.random.default_rng(1).permutation(COUNT // 2)
    order = np.stack([2 * pairs, 2 * pairs + 1], axis=1).ravel()
    shuffled_images, shuffled_targets = run(part(batch, order), EVERYTHING, POLICY)
    assert torch.equal(shuffled_images, images[order])
    assert torch.equal(shuffled_targets, targets[order])


def test_without_mixing_a_sample_does_not_depend_on_its_batch(batch):
    transform = plain(crop_padding=3, flip=True, erasing=0.5)
    images, targets = run(batch, transform, POLICY)
    assert targets is batch[1]
    order = np.random.default_rng(1).permutation(COUNT)[:13]
    assert torch.equal(run(part(batch, order), transform, POLICY)[0], images[order])


def test_epochs_differ_and_an_epoch_can_be_repeated(batch):
    first, second, again = (run(batch, EVERYTHING, POLICY, epoch)[0] for epoch in (0, 1, 0))
    assert torch.equal(first, again)
    assert (first != second).flatten(1).any(dim=1).all()


def test_crops_are_windows_of_the_padded_image_and_flips_are_fair():
    count, pad = 4000, 2
    image = torch.arange(1, 1 + 3 * 5 * 6, dtype=torch.uint8).view(1, 3, 5, 6)
    transform = plain(crop_padding=pad, flip=True)
    result = crop_and_flip(image.expand(count, -1, -1, -1), np.arange(count), transform, 0, 0)
    padded = functional.pad(image[0], (pad,) * 4)
    windows = {}
    for top in range(2 * pad + 1):
        for left in range(2 * pad + 1):
            window = padded[:, top : top + 5, left : left + 6]
            windows[window.numpy().tobytes()] = (top, left, 0)
            windows[window.flip(2).contiguous().numpy().tobytes()] = (top, left, 1)
    places = np.array([windows[one.contiguous().numpy().tobytes()] for one in result])
    counts = np.bincount(places[:, 0] * 5 + places[:, 1], minlength=25)
    assert (abs(counts - count / 25) < 5 * np.sqrt(count / 25)).all()
    assert abs(places[:, 2].mean() - 0.5) < 5 * 0.5 / np.sqrt(count)


def test_erased_boxes_are_zero_and_the_rest_is_untouched(batch):
    transform = plain(erasing=0.6)
    clean, _ = run(batch, plain())
    erased, _ = run(batch, transform)
    boxes = erasing_boxes(batch[2], (20, 28), 0.6, 0, 0)
    for one, other, (left, top, right, bottom) in zip(erased, clean, boxes, strict=True):
        inside = torch.zeros(20, 28, dtype=torch.bool)
        inside[top:bottom, left:right] = True
        assert (one[:, inside] == 0).all()
        assert torch.equal(one[:, ~inside], other[:, ~inside])


def test_erased_boxes_have_the_set_probability_and_timms_areas_and_ratios():
    boxes = erasing_boxes(np.arange(5000), (224, 224), 0.25, 0, 0)
    sides = (boxes[:, 2:] - boxes[:, :2]).astype(float)
    is_erased = sides.prod(axis=1) > 0
    assert abs(is_erased.mean() - 0.25) < 0.03
    area = sides[is_erased].prod(axis=1) / 224**2
    assert 0.019 < area.min() < 0.03
    assert 0.30 < area.max() < 0.34
    ratio = sides[is_erased, 1] / sides[is_erased, 0]
    assert ratio.min() > 0.29
    assert ratio.max() < 3.45
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2:] <= 224).all()


def test_mixup_is_the_weighted_mean_of_neighbours_and_their_labels(batch):
    _, labels, ids = batch
    mixed, targets = run(batch, plain(mixup=0.4))
    clean, _ = run(batch, plain())
    weights, boxes = mixing(ids, (20, 28), 0.4, 0.0, 0, 0)
    assert not boxes.any()
    for i in range(COUNT):
        weight, other = float(weights[i]), i ^ 1
        torch.testing.assert_close(mixed[i], weight * clean[i] + (1 - weight) * clean[other])
        expected = torch.zeros(CLASSES)
        expected[labels[i]] += weight
        expected[labels[other]] += 1 - weight
        torch.testing.assert_close(targets[i], expected)


def test_cutmix_weighs_labels_by_the_area_of_the_clipped_box(batch):
    _, labels, ids = batch
    mixed, targets = run(batch, plain(cutmix=1.0))
    clean, _ = run(batch, plain())
    weights, boxes = mixing(ids, (20, 28), 0.0, 1.0, 0, 0)
    assert (weights == 1).all()
    for i, (left, top, right, bottom) in enumerate(boxes):
        inside = torch.zeros(20, 28, dtype=torch.bool)
        inside[top:bottom, left:right] = True
        assert torch.equal(mixed[i][:, inside], clean[i ^ 1][:, inside])
        assert torch.equal(mixed[i][:, ~inside], clean[i][:, ~inside])
        if labels[i] != labels[i ^ 1]:
            share = 1 - inside.float().mean()
            torch.testing.assert_close(targets[i, labels[i]], share)


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.4, 0.0), (0.0, 1.0), (0.4, 1.0)])
def test_targets_sum_to_one(batch, mixup, cutmix):
    _, targets = run(batch, plain(mixup=mixup, cutmix=cutmix))
    assert targets.dtype == torch.float32
    torch.testing.assert_close(targets.sum(dim=1), torch.ones(COUNT))
    assert (targets >= 0).all()


def test_weights_of_mixup_are_beta_distributed():
    from scipy import stats

    for a in (0.2, 1.0, 4.0):
        weights, _ = mixing(np.arange(4000), (8, 8), a, 0.0, 0, 0)
        assert stats.kstest(weights.astype(float), stats.beta(a, a).cdf).pvalue > 0.001


def test_with_mixup_and_cutmix_each_gets_half_of_the_samples():
    weights, boxes = mixing(np.arange(4000), (32, 32), 1.0, 1.0, 0, 0)
    is_cut = weights == 1
    assert abs(is_cut.mean() - 0.5) < 0.04
    assert not boxes[~is_cut].any()


def test_type_and_memory_layout_do_not_change_the_values(batch):
    images, _ = run(batch, EVERYTHING, POLICY)
    channels_last, _ = run(batch, EVERYTHING, POLICY, channels_last=True)
    bfloat16, _ = run(batch, EVERYTHING, POLICY, dtype=torch.bfloat16, channels_last=True)
    assert channels_last.is_contiguous(memory_format=torch.channels_last)
    assert bfloat16.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(channels_last, images)
    assert torch.equal(bfloat16, images.bfloat16())
    channels_last_input = batch[0].contiguous(memory_format=torch.channels_last)
    assert torch.equal(run((channels_last_input, *batch[1:]), EVERYTHING, POLICY)[0], images)


def test_the_input_and_the_global_random_state_do_not_change(batch):
    before, state = batch[0].clone(), torch.get_rng_state()
    run(batch, EVERYTHING, POLICY)
    assert torch.equal(batch[0], before)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_wrong_batch_is_refused_in_a_sentence(batch):
    with pytest.raises(UserError, match="even on every rank"):
        run(part(batch, slice(0, 3)), EVERYTHING)
    with pytest.raises(UserError, match="one of each for every sample"):
        run((batch[0], batch[1], batch[2][:5]), plain())
    with pytest.raises(UserError, match="float32"):
        run((batch[0].float(), *batch[1:]), plain())
