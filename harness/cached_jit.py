"""Functions that Numba compiles once per machine and caches on disk, with a fallback in memory.

Compiling takes seconds (five for the augmentation loops), reading the disk cache about one. Numba
writes the cache beside the source file, or in its own cache folder where that is not writable. If
neither folder can be written, or the cached files are damaged, the function is compiled in memory
for the current process.
"""

from __future__ import annotations

import functools
import pickle
import sys
import threading
from collections.abc import Callable
from typing import Any

import numba

# What unpickling Numba's cache files raises where they were cut off or overwritten.
_CORRUPT_CACHE = (
    EOFError, pickle.UnpicklingError, ValueError, TypeError, KeyError, IndexError, AttributeError,
    ImportError,
)  # fmt: skip
jit = functools.partial(numba.njit, nogil=True, error_model="numpy")
"""Compile with the options that all compiled functions share, whether cached or not."""


class CachedJit:
    """A decorator: the function compiled by Numba and cached on disk; threads may call it at once.

    The function must not raise: an exception is read as a corrupt cache.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._uncached: Callable[..., Any] | None = None
        self._lock = threading.Lock()
        try:
            self.compiled = jit(cache=True)(function)
        except RuntimeError:  # Numba found no folder that it can write
            self.compiled = jit()(function)

    def __call__(self, *arguments: Any) -> Any:
        """Return what the function returns."""
        if self._uncached is not None:
            return self._uncached(*arguments)
        try:
            return self.compiled(*arguments)
        except OSError:  # the disk is full: Numba compiled the function, but could not cache it
            return self.compiled(*arguments)
        except _CORRUPT_CACHE as error:
            with self._lock:
                if self._uncached is None:
                    print(
                        "note: the compiled code that Numba cached in "
                        f"{self.compiled.stats.cache_path} cannot be read "
                        f"({type(error).__name__}), so this process compiles it again; remove "
                        "that folder.",
                        file=sys.stderr,
                    )
                    self._uncached = jit()(self._function)
            return self._uncached(*arguments)
