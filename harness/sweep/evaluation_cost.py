"""Estimate what evaluations on targets cost, before they are made."""

from __future__ import annotations

from collections.abc import Mapping

from harness.data.catalog import info_of
from harness.schema import DatasetConfig, StageConfig
from harness.states import StageState
from harness.sweep.targets import Target

CORRUPTING = 3.5e-7
"""Core-seconds to corrupt a pixel, mean over corruptions: `python benchmarks/corrupt.py`."""
FORWARD = 1 / 3  # of a training step: a backward pass costs about two forward passes


def images_of(dataset: DatasetConfig) -> int:
    """Return how many images validation and test have together."""
    return dataset.validation_size + (dataset.test_size or info_of(dataset).test_size)


def describe(
    configs: Mapping[str, StageConfig], target: Target, states: Mapping[str, StageState]
) -> str:
    """Return how many images these stages would judge, and about how long it takes, as a clause.

    Images are made once for all stages on a data set. How long a network takes for an image is
    known from its training, where that is finished.
    """
    judged = sum(images_of(config.dataset) * target.copies for config in configs.values())
    corrupting = 0.0
    for dataset in {config.dataset for config in configs.values()}:
        side = dataset.resolution or info_of(dataset).resolution
        corrupting += images_of(dataset) * target.copies * side**2 * CORRUPTING
    forward, unknown = 0.0, 0
    for stage, config in configs.items():
        result = (states[stage].result if stage in states else None) or {}
        examples = result.get("examples")
        if not examples:
            unknown += 1
            continue
        seconds = result["timing"]["gpu_seconds"] / examples * FORWARD
        forward += images_of(config.dataset) * target.copies * seconds
    times = f"about {_hours(corrupting)} core-hours to make the images"
    if unknown < len(configs):
        times += f" and {_hours(forward)} device-hours to judge them"
    return f"{judged:,} images to judge, {times}"


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.2g}"
