"""Pruning and surplus parameters: methods, forms, masks, batch-norm statistics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.compress.methods import Method, Request, register_method
from harness.compress.surplus import Form, GraphForm, PathForm, register_form
from harness.lazy import lazy_exports

if TYPE_CHECKING:
    from harness.compress.masks import Masks, lowest

__all__ = [
    "Form", "GraphForm", "Masks", "Method", "PathForm", "Request", "lowest", "register_form",
    "register_method",
]  # fmt: skip
__getattr__ = lazy_exports(__name__, {"masks": ("Masks", "lowest")})
