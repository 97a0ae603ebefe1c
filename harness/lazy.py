"""Public names of a package whose modules are imported when the names are first used."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def lazy_exports(package: str, names: Mapping[str, Sequence[str]]) -> Callable[[str], Any]:
    """Return the function `__getattr__` of a package that exports names of modules with torch.

    `names` maps a module of the package to the names that the package exports from it. The module
    is imported at the first use of one of them, because planning works without torch. Type checkers
    do not see these names: the package also imports them under `TYPE_CHECKING`.
    """
    modules = {name: module for module, exported in names.items() for name in exported}

    def import_name(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{package}.{modules[name]}"), name)

    return import_name
