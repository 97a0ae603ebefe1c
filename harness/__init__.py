"""Sweeps of training runs over model size, sparsity and augmentation magnitude.

From Python: `from harness import launch, status, cancel` gives the functions of `harness.notebook`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.notebook import cancel, launch, status

__all__ = ["cancel", "launch", "status"]


def __getattr__(name: str) -> Any:
    """Return a function of `harness.notebook`, which is imported only when it is needed."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from harness import notebook

    return getattr(notebook, name)
