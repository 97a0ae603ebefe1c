"""Data sets, their splits, and the loaders that give their batches."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.data.catalog import CATALOG, DatasetInfo, image_folder
    from harness.data.datasets import first_images, load
    from harness.data.loader import make_loader
    from harness.data.types import Batch, Dataset, Loader, Split

_MODULES = {
    "CATALOG": "catalog",
    "DatasetInfo": "catalog",
    "image_folder": "catalog",
    "first_images": "datasets",
    "load": "datasets",
    "make_loader": "loader",
    "Batch": "types",
    "Dataset": "types",
    "Loader": "types",
    "Split": "types",
}

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
]


def __getattr__(name: str) -> object:
    """Import a public name at its first use, so that planning does not import torch."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
