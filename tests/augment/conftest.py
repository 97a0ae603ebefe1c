"""Test images, results of Pillow to compare with, and the two executors for a CPU."""

import numpy as np
import pytest
import torch
from pictures import odd
from PIL import Image

from harness.augment import numba_executor, torch_executor
from harness.augment.lower import lower
from harness.augment.ops import Kind
from harness.augment.replay import replay


@pytest.fixture(scope="session")
def pictures():
    """A function (height, width) -> uint8 [6, 3, H, W].

    The images are ramps, noise, low contrast, a constant, and two levels.
    """
    return odd


@pytest.fixture(scope="session")
def by_pillow():
    """A function (images, plan) -> images to which Pillow applied the records of the plan."""

    def run(images: torch.Tensor, plan) -> torch.Tensor:
        results = []
        for i, image in enumerate(images):
            picture = Image.fromarray(np.ascontiguousarray(image.permute(1, 2, 0).numpy()))
            records = plan.records(i, size=tuple(images.shape[2:]))
            result = replay(picture, records, plan.fill, plan.interpolation)
            results.append(np.asarray(result).transpose(2, 0, 1))
        return torch.from_numpy(np.stack(results).copy())

    return run


EXECUTORS = {"torch": torch_executor.run, "numba": numba_executor.run}


def _called_directly(executor):
    def run(images: torch.Tensor, plan) -> torch.Tensor:
        lowered = lower(plan, *images.shape[2:])
        if (lowered.kinds == Kind.KERNEL).any():
            return torch_executor.run(images, lowered, plan.fill, plan.interpolation)
        return executor(images, lowered, plan.fill, plan.interpolation)

    return run


@pytest.fixture(params=EXECUTORS)
def execute(request):
    """A function (images, plan) -> result of one executor, called without `apply`."""
    return _called_directly(EXECUTORS[request.param])


@pytest.fixture(scope="session")
def executors():
    """Both executors by name, for tests that compare both with one result of Pillow."""
    return {name: _called_directly(executor) for name, executor in EXECUTORS.items()}
