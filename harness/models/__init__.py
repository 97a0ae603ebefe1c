"""Model families with a width, one file each, and the counts of their parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.lazy import lazy_exports
from harness.models.family import Family, register_family, scale_channels
from harness.models.registry import build, check, roles

if TYPE_CHECKING:
    from harness.models.counts import Counts, count

__all__ = [
    "Counts", "Family", "build", "check", "count", "register_family", "roles", "scale_channels",
]  # fmt: skip
__getattr__ = lazy_exports(__name__, {"counts": ("Counts", "count")})
