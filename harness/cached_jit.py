"""Loops that Numba compiles once for a machine and keeps, whatever befalls what it kept.

They are kept beside their source, or in Numba's own cache folder where that cannot be written, or
(no folder at all, or what it holds is damaged) for this process alone.
"""

from __future__ import annotations

import functools
import pickle
import sys
import threading
from collections.abc import Callable
from typing import Any

import numba

# What unpickling Numba's files raises where they were cut off or overwritten.
_DAMAGE = (
    EOFError, pickle.UnpicklingError, ValueError, TypeError, KeyError, IndexError, AttributeError,
    ImportError,
)  # fmt: skip
compiling = functools.partial(numba.njit, nogil=True, error_model="numpy")
"""How all loops here are compiled, those that a kept one calls, too."""


class Kept:
    """A compiled function over arrays, called as the plain one is; threads run it side by side.

    What it raises is taken for damage of what was kept, so it must raise nothing itself.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._unkept: Callable[..., Any] | None = None
        self._lock = threading.Lock()
        try:
            self.loop = compiling(cache=True)(function)
        except RuntimeError:  # Numba found no folder that it can write
            self.loop = compiling()(function)

    def __call__(self, *arguments: Any) -> Any:
        """What the function returns."""
        if self._unkept is not None:
            return self._unkept(*arguments)
        try:
            return self.loop(*arguments)
        except OSError:  # compiled, but not kept: a full disk, a quota; now it is in memory
            return self.loop(*arguments)
        except _DAMAGE as error:
            with self._lock:
                if self._unkept is None:
                    print(
                        f"note: the compiled loops that Numba kept in {self.loop.stats.cache_path} "
                        f"cannot be read ({type(error).__name__}), so this process compiles them "
                        "again: remove that folder.",
                        file=sys.stderr,
                    )
                    self._unkept = compiling()(self._function)
            return self._unkept(*arguments)
