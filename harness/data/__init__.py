"""Data sets, their splits, and the loaders that give their batches."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.lazy import lazy_exports

if TYPE_CHECKING:
    from harness.data.catalog import CATALOG
    from harness.data.datasets import load
    from harness.data.tree import tree_problems

__all__ = ["CATALOG", "load", "tree_problems"]
__getattr__ = lazy_exports(
    __name__, {"catalog": ("CATALOG",), "datasets": ("load",), "tree": ("tree_problems",)}
)
