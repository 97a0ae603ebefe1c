"""Corrupted images: the same bytes in any order, and as strong as those of the library."""

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from harness.corrupt import CORRUPTIONS, SEVERITIES, corrupt

FOLDER = Path(__file__).parent


def images_of(side, count):
    """Smooth colours, an edge, and noise of a generator whose stream NumPy guarantees."""
    y, x = np.mgrid[0:side, 0:side] / side
    smooth = [0.5 + 0.4 * np.sin(9 * x + 3 * y), 0.5 + 0.4 * np.cos(7 * y * x * 3)]
    base = np.stack([*smooth, 0.2 + 0.6 * x * (y > 0.5)], -1)
    noise = [np.random.RandomState(i).uniform(-0.08, 0.08, base.shape) for i in range(count)]
    return np.stack([np.clip(base + one, 0, 1) * 255 for one in noise]).astype(np.uint8)


def strength(images, corrupted):
    return np.abs(corrupted.astype(int) - images).mean()


@pytest.mark.parametrize("side", [8, 28, 32, 64, 112])
@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_an_image_is_the_same_in_any_order_batch_and_thread(corruption, side):
    images, ids = images_of(side, 5), np.array([3, 17, 4, 2**33, 5])
    together = corrupt(images, ids, corruption, 3)
    assert together.shape == images.shape
    assert together.dtype == np.uint8
    backwards = corrupt(images[::-1], ids[::-1], corruption, 3)[::-1]
    with ThreadPoolExecutor(5) as pool:
        jobs = [pool.submit(corrupt, images[i : i + 1], ids[i : i + 1], corruption, 3)
                for i in range(5)]  # fmt: skip
        alone = np.concatenate([job.result() for job in jobs])
    assert np.array_equal(together, backwards)
    assert np.array_equal(together, alone)
    assert not np.array_equal(together, images)


@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_images_are_those_that_were_recorded(corruption):
    """On every machine: otherwise results of two nodes would be of different images."""
    recorded = json.loads((FOLDER / "digests.json").read_text())
    images, ids = images_of(32, 3), np.arange(3)
    digest = hashlib.sha256()
    for severity in SEVERITIES:
        digest.update(corrupt(images, ids, corruption, severity).tobytes())
    assert digest.hexdigest()[:16] == recorded[corruption]


RANDOM = {"gaussian_noise", "shot_noise", "impulse_noise", "glass_blur", "motion_blur", "snow",
          "frost", "fog", "elastic_transform"}  # fmt: skip


@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_only_random_corruptions_depend_on_the_id(corruption):
    images = images_of(32, 1)
    first, second = (corrupt(images, np.array([i]), corruption, 3) for i in (0, 1))
    assert np.array_equal(first, second) == (corruption not in RANDOM)


@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_severities_change_images_as_much_as_the_library_does(corruption):
    """Mean change in levels, of 4 images of 112 pixels, by imagecorruptions-imaug 1.1.5.

    The library's numbers are means over 30 draws for each image of corruptions whose draws concern
    the whole image. Frost is not of the same photographs.
    """
    library = json.loads((FOLDER / "library.json").read_text())[corruption]
    times = 12 if corruption in ("frost", "fog", "snow", "motion_blur") else 1
    images = np.tile(images_of(112, 4), (times, 1, 1, 1))
    ids = np.arange(len(images))
    ours = [strength(images, corrupt(images, ids, corruption, s)) for s in SEVERITIES]
    tolerance = {
        "frost": 0.2,
        "fog": 0.06,
        "motion_blur": 0.06,
        "snow": 0.04,
        "impulse_noise": 0.05,
    }
    assert ours == pytest.approx(library, rel=tolerance.get(corruption, 0.02))


GROWING = sorted(set(CORRUPTIONS) - {"glass_blur", "elastic_transform", "motion_blur", "frost"})


@pytest.mark.parametrize("side", [32, 64])
@pytest.mark.parametrize("corruption", GROWING)
def test_a_higher_severity_changes_more(corruption, side):
    images, ids = images_of(side, 16), np.arange(16)
    changes = [strength(images, corrupt(images, ids, corruption, s)) for s in SEVERITIES]
    assert changes == sorted(changes)


def test_grey_images_get_coloured_noise_as_colour_images_do():
    """Grey sets are repeated in three channels before: noise and weather then have colours."""
    grey = np.repeat(images_of(28, 1)[..., :1], 3, axis=-1)
    corrupted = corrupt(grey, np.arange(1), "gaussian_noise", 3)
    assert not np.array_equal(corrupted[..., 0], corrupted[..., 1])
    blurred = corrupt(grey, np.arange(1), "defocus_blur", 3)
    assert np.array_equal(blurred[..., 0], blurred[..., 1])
