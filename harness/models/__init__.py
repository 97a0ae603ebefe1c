"""Model families with a width, one file each, and the counts of their parameters."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.models.counts import Counts, count
    from harness.models.family import Family, register_family, scale_channels
    from harness.models.registry import build, check, roles

_MODULES = {
    "Counts": "counts",
    "count": "counts",
    "Family": "family",
    "register_family": "family",
    "scale_channels": "family",
    "build": "registry",
    "check": "registry",
    "roles": "registry",
}

__all__ = [
    "Counts",
    "Family",
    "build",
    "check",
    "count",
    "register_family",
    "roles",
    "scale_channels",
]


def __getattr__(name: str) -> object:
    """Import a public name at its first use, so that planning does not import torch."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
