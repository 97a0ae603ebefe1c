"""A trial: one cell of the grid, one row of the results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.schema import TrialConfig


@dataclass(frozen=True)
class Trial:
    """`id` is the digest of its config; `cell` has its value on every axis of the grid."""

    id: str
    cell: Mapping[str, Any]
    config: TrialConfig
