"""How a job imports what is large: most of the time that its start takes."""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import sys
import threading
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


def import_ffcv() -> None:
    """`import ffcv` in a thirtieth of its time: it compiles a typed table of two entries.

    A plain one does, since its decoders read it before they are compiled.
    """
    if "ffcv" in sys.modules:
        return
    import numba.typed

    typed, numba.typed.Dict = numba.typed.Dict, dict
    try:
        importlib.import_module("ffcv")
    finally:
        numba.typed.Dict = typed


@contextlib.contextmanager
def with_timm() -> Iterator[None]:
    """Import timm here, or what needs it, without what it loads for parts that nobody uses here.

    Where installed, its log of summaries loads a tracker, and torchvision's ops ask the compiler
    for one function: three of the five seconds that it takes.
    """
    import torch  # noqa: F401  # whose compiler it is

    defer_compiler()
    with uncollected(), unseen("wandb"):
        yield


class _Deferred(ModuleType):
    """A module that has its place, and is executed once more of it is wanted, or what is below."""

    def __getattr__(self, name: str) -> Any:
        if name == "__path__":  # an import asks whether this is a package: those have it
            raise AttributeError(name)
        _execute(sys.modules[COMPILER])
        _execute(self)
        if isinstance(self, _Deferred):  # this thread executes it
            raise AttributeError(f"{self.__name__} has no {name} yet")
        return getattr(self, name)


class _Below:
    """Finds what lies below the deferred package: after that was executed, as Python would."""

    def find_spec(self, name: str, path: object, target: object = None) -> ModuleSpec | None:
        if not name.startswith(f"{COMPILER}."):
            return None
        _execute(sys.modules[COMPILER])
        if name not in sys.modules:
            return None
        found = vars(sys.modules[name])
        self.found, found["__spec__"] = found["__spec__"], None  # or Python would execute it again
        return importlib.util.spec_from_loader(name, self)  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """The module that is there by now."""
        return sys.modules[spec.name]

    def exec_module(self, module: ModuleType) -> None:
        """It was executed already."""
        vars(module)["__spec__"] = self.found


_below = _Below()
_lock = threading.RLock()
_executing: list[ModuleType] = []


def _execute(module: ModuleType) -> None:
    """Execute it if it is deferred; another thread waits, this one goes on with what is there."""
    if not _lock.acquire(timeout=60.0):  # the other may wait for a module that this one imports
        raise ImportError(f"{module.__name__} is being loaded by another thread")
    try:
        if not isinstance(module, _Deferred) or module in _executing:
            return
        _executing.append(module)
        if module.__name__ == COMPILER:
            sys.meta_path.remove(_below)
        with uncollected():
            module.__spec__.loader.exec_module(module)  # type: ignore[union-attr]
        module.__class__ = ModuleType  # type: ignore[assignment]
    except BaseException:  # out of the way, as Python does it: the next one is told the reason, too
        for name in (COMPILER, f"{COMPILER}.utils"):
            sys.modules.pop(name, None)
        vars(sys.modules["torch"]).pop("_dynamo", None)
        raise
    finally:
        _lock.release()


def defer_compiler() -> None:
    """Have torch load its compiler when more of it is wanted than every optimizer and DDP want.

    They mark functions that are not to be compiled and ask for a setting, for which it is loaded
    at the first step: a third of a job's start, and nothing here is compiled by it. torchvision
    keeps a function of it for operators that compile.
    """
    if COMPILER in sys.modules:
        return
    needed = {
        "graph_break": lambda *_, **__: None,
        "disable": lambda fn=None, *_, **__: (lambda f: f) if fn is None else fn,
    }
    package = _deferred(COMPILER, needed)
    asked = {
        "get_optimize_ddp_mode": lambda: "ddp_optimizer",
        "is_compile_supported": lambda *args: _utils().is_compile_supported(*args),
    }
    package.utils = _deferred(f"{COMPILER}.utils", asked)  # type: ignore[attr-defined]
    vars(sys.modules["torch"])["_dynamo"] = package  # else each step would ask for it by import
    sys.meta_path.insert(0, _below)


def _utils() -> Any:
    """The compiler's `utils`, executed."""
    importlib.import_module(f"{COMPILER}.utils")  # as it is there, or again after it failed
    for name in (COMPILER, f"{COMPILER}.utils"):
        _execute(sys.modules[name])
    return sys.modules[f"{COMPILER}.utils"]


def _deferred(name: str, needed: dict[str, Any]) -> ModuleType:
    """Put a module in its place that so far has what is `needed`."""
    module = importlib.util.module_from_spec(importlib.util.find_spec(name))  # type: ignore[arg-type]
    vars(module).update(needed)
    module.__class__ = _Deferred
    sys.modules[name] = module
    return module
