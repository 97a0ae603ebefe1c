"""How a job imports what is large: most of the time that its start takes."""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

COMPILER = "torch._dynamo"


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Keep the garbage collector off while modules are imported: it would look and find nothing.

    That is a sixth of the time that torch and its compiler take.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@contextlib.contextmanager
def unseen(package: str) -> Iterator[None]:
    """Let what is imported here find an optional package only if it is loaded already."""
    if package in sys.modules:
        yield
        return
    sys.modules[package] = None  # type: ignore[assignment]  # Python's mark for "not there"
    try:
        yield
    finally:
        del sys.modules[package]


class _Deferred(ModuleType):
    """A module that has its place, and is executed once something in it or below it is wanted."""

    def __getattr__(self, name: str) -> Any:
        _execute(sys.modules[COMPILER])
        _execute(self)
        return getattr(self, name)


class _Below:
    """Finds what lies below the deferred package: after that was executed, as Python would."""

    def find_spec(self, name: str, path: object, target: object = None) -> ModuleSpec | None:
        if not name.startswith(f"{COMPILER}."):
            return None
        _execute(sys.modules[COMPILER])
        return importlib.util.spec_from_loader(name, self) if name in sys.modules else None  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """The module that is there by now."""
        return sys.modules[spec.name]

    def exec_module(self, module: ModuleType) -> None:
        """It was executed."""


_below = _Below()


def _execute(module: ModuleType) -> None:
    if not isinstance(module, _Deferred):
        return
    module.__class__ = ModuleType  # type: ignore[assignment]
    if module.__name__ == COMPILER:
        sys.meta_path.remove(_below)
    with uncollected():
        module.__spec__.loader.exec_module(module)  # type: ignore[union-attr]


def defer_compiler() -> None:
    """Have torch load its compiler when something is compiled.

    Otherwise it does so at the first step of an optimizer, to mark functions that are not to be
    compiled, and for DDP, which asks for the compiler's settings: a third of a job's start, and
    nothing here is compiled by it.
    """
    if COMPILER in sys.modules:
        return
    needed = {
        "graph_break": lambda *_, **__: None,
        "disable": lambda fn=None, *_, **__: (lambda f: f) if fn is None else fn,
    }
    package = _deferred(COMPILER, needed)
    package.utils = _deferred(  # type: ignore[attr-defined]
        f"{COMPILER}.utils", {"get_optimize_ddp_mode": lambda: "ddp_optimizer"}
    )
    sys.meta_path.insert(0, _below)


def _deferred(name: str, needed: dict[str, Any]) -> ModuleType:
    """Put a module in its place that so far has what is `needed`."""
    module = importlib.util.module_from_spec(importlib.util.find_spec(name))  # type: ignore[arg-type]
    vars(module).update(needed)
    module.__class__ = _Deferred
    sys.modules[name] = module
    return module
