"""Images that find mistakes, and Pillow as the oracle."""

import numpy as np
import pytest
import torch
from PIL import Image

from harness.augment.replay import replay


def _kinds(height: int, width: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width]
    blocks = random.integers(90, 140, (-(-height // 8), -(-width // 8), 3))
    diagonal = (x + y) * 255 // max(1, height + width - 2)
    return {
        "across": np.stack([x * 255 // max(1, width - 1)] * 3, axis=-1),
        "diagonal": np.stack([diagonal, 255 - diagonal, (x * 7 + y * 3) % 256], axis=-1),
        "noise": random.integers(0, 256, (height, width, 3)),
        "low contrast": blocks.repeat(8, axis=0).repeat(8, axis=1)[:height, :width],
        "constant": np.full((height, width, 3), 93),
        "two levels": random.integers(0, 2, (height, width, 3)) * 255,
    }


@pytest.fixture(scope="session")
def pictures():
    """(height, width) -> uint8 [6, 3, height, width]: ramps, noise, low contrast, flat, two levels."""

    def make(height: int, width: int) -> torch.Tensor:
        stacked = np.stack(list(_kinds(height, width).values())).astype(np.uint8)
        return torch.from_numpy(np.ascontiguousarray(stacked.transpose(0, 3, 1, 2)))

    return make


@pytest.fixture(scope="session")
def by_pillow():
    """(images, plan) -> what Pillow makes of the plan's records, uint8 [N, 3, H, W]."""

    def run(images: torch.Tensor, plan) -> torch.Tensor:
        results = []
        for i, image in enumerate(images):
            picture = Image.fromarray(np.ascontiguousarray(image.permute(1, 2, 0).numpy()))
            records = plan.records(i, size=tuple(images.shape[2:]))
            result = replay(picture, records, plan.fill, plan.interpolation)
            results.append(np.asarray(result).transpose(2, 0, 1))
        return torch.from_numpy(np.stack(results).copy())

    return run
