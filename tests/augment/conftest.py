"""Images that find mistakes, Pillow as the oracle, and both executors."""

import numpy as np
import pytest
import torch
from PIL import Image

from harness.augment import compiled, kernels
from harness.augment.lower import lower
from harness.augment.replay import replay


def kinds_of_image(height: int, width: int) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width]
    blocks = random.integers(90, 140, (-(-height // 8), -(-width // 8), 3))
    diagonal = (x + y) * 255 // max(1, height + width - 2)
    return [
        np.stack([x * 255 // max(1, width - 1)] * 3, axis=-1),  # a ramp
        np.stack([diagonal, 255 - diagonal, (x * 7 + y * 3) % 256], axis=-1),  # coloured ramps
        random.integers(0, 256, (height, width, 3)),  # noise
        blocks.repeat(8, axis=0).repeat(8, axis=1)[:height, :width],  # low contrast
        np.full((height, width, 3), 93),  # constant
        random.integers(0, 2, (height, width, 3)) * 255,  # two levels
    ]


@pytest.fixture(scope="session")
def pictures():
    """(height, width) -> uint8 [6, 3, H, W]: ramps, noise, low contrast, constant, two levels."""

    def make(height: int, width: int) -> torch.Tensor:
        stacked = np.stack(kinds_of_image(height, width)).astype(np.uint8)
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


@pytest.fixture(params=[kernels.run, compiled.run], ids=["torch", "numba"])
def execute(request):
    """(images, plan) -> result of one executor, called directly."""

    def run(images: torch.Tensor, plan) -> torch.Tensor:
        lowered = lower(plan, *images.shape[2:])
        return request.param(images, lowered, plan.fill, plan.interpolation)

    return run
