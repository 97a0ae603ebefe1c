"""Data sets, their splits, and the loaders that give their batches."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.lazy import lazy_exports

if TYPE_CHECKING:
    from harness.data.catalog import CATALOG, DatasetInfo, image_folder
    from harness.data.datasets import first_images, load
    from harness.data.loader import make_loader
    from harness.data.tree import tree_problems
    from harness.data.types import Batch, Dataset, Loader, Split

__all__ = [
    "CATALOG",
    "Batch",
    "Dataset",
    "DatasetInfo",
    "Loader",
    "Split",
    "first_images",
    "image_folder",
    "load",
    "make_loader",
    "tree_problems",
]

__getattr__ = lazy_exports(
    __name__,
    {
        "catalog": ("CATALOG", "DatasetInfo", "image_folder"),
        "datasets": ("first_images", "load"),
        "loader": ("make_loader",),
        "tree": ("tree_problems",),
        "types": ("Batch", "Dataset", "Loader", "Split"),
    },
)
