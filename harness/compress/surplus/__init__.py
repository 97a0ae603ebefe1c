"""Additional parameters while a small network trains. Each file here registers one form.

A form is a path of ordinary stages (`base.PathForm`) or a training graph around the small model
(`base.GraphForm`). The files import torch inside functions only, because plans read them on
machines without torch.
"""

from __future__ import annotations

import importlib
import pkgutil

from harness.compress.surplus.base import (
    FORMS,
    Build,
    Form,
    Graph,
    GraphForm,
    PathForm,
    Step,
    make_graph,
    register_form,
)

__all__ = [
    "FORMS", "Build", "Form", "Graph", "GraphForm", "PathForm", "Step", "make_graph",
    "register_form",
]  # fmt: skip

for _file in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_file.name}")
