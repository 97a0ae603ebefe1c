"""Ways to make a network smaller. Each file here registers one method; see `base.Method`.

The files import torch inside functions only, because plans read them on machines without torch.
"""

from __future__ import annotations

import importlib
import pkgutil

from harness.compress.methods.base import METHODS, Method, Request, register_method

__all__ = ["METHODS", "Method", "Request", "register_method"]

for _file in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_file.name}")
