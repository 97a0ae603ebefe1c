"""Functions that Numba compiles once per machine and caches on disk, with a fallback in memory.

Compiling the augmentation loops takes about five seconds, and reading them from the disk cache
takes about one. Numba writes the cache into the folder of the source file or, if that folder is not
writable, into its own cache folder. If neither folder can be written, or the cached files are
damaged, the function is compiled in memory for the current process.
"""

from __future__ import annotations

import functools
import pickle
import sys
import threading
from collections.abc import Callable
from typing import Any

import numba

# Exceptions that unpickling raises for a truncated or overwritten cache file of Numba.
_CORRUPT_CACHE = (
    EOFError, pickle.UnpicklingError, ValueError, TypeError, KeyError, IndexError, AttributeError,
    ImportError,
)  # fmt: skip
jit = functools.partial(numba.njit, nogil=True, error_model="numpy")
"""Numba's decorator with the options of all compiled functions, cached or not."""


class CachedJit:
    """A decorator: the function is compiled by Numba and cached on disk.

    Several threads may call it at the same time. The function must not raise, because an exception
    is read as a corrupt cache.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._uncached: Callable[..., Any] | None = None
        self._lock = threading.Lock()
        try:
            self.compiled = jit(cache=True)(function)
        except RuntimeError:  # Numba can write neither of the two folders
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
