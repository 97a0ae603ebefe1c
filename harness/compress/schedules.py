"""Magnitudes along the path of a trial: its dense stage, then its levels."""

from __future__ import annotations

from harness.schema import AugmentConfig, Magnitude


def magnitudes(augment: AugmentConfig, levels: int) -> tuple[Magnitude, ...]:
    """Magnitude of the dense stage and of each of `levels` levels: the trial's, throughout."""
    return (augment.magnitude,) * (1 + levels)
