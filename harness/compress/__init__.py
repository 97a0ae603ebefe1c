"""Pruning and surplus parameters: methods, forms, masks, batch-norm statistics.

Methods and forms are known without torch. The names that compute with tensors are imported from
their modules when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from harness.compress.methods import Method, Request, register_method
from harness.compress.surplus import Form, GraphForm, PathForm, register_form

if TYPE_CHECKING:
    from harness.compress.batchnorm import reestimate
    from harness.compress.masks import Masks, apply_masks, lowest, magnitude_masks, prunable

__all__ = [
    "Form", "GraphForm", "Masks", "Method", "PathForm", "Request", "apply_masks", "lowest",
    "magnitude_masks", "prunable", "reestimate", "register_form", "register_method",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name == "reestimate":
        return importlib.import_module("harness.compress.batchnorm").reestimate
    if name in __all__:
        return getattr(importlib.import_module("harness.compress.masks"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
