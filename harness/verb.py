"""Modules that can be called: `from harness import launch, status` in a notebook."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any


class Verb(ModuleType):
    """A module that can be called: what it then does is the function of its name in `notebook`.

    `from harness import launch` gives the module of that name as soon as anything has imported it,
    whatever else the package calls `launch`.
    """

    def __call__(self, *args: Any, **named: Any) -> Any:
        """The function of the same name in the package's `notebook` module."""
        package, _, name = self.__name__.rpartition(".")
        return getattr(importlib.import_module(f"{package}.notebook"), name)(*args, **named)


def callable_module(name: str) -> None:
    """Let the module `name` be called."""
    sys.modules[name].__class__ = Verb
