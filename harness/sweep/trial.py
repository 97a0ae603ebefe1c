"""A trial: one cell of the grid, one row of the results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.schema import TrialConfig


@dataclass(frozen=True)
class Trial:
    """One cell of a grid. `cell` has the config's value on every axis of the grid."""

    id: str
    cell: Mapping[str, Any]
    config: TrialConfig
