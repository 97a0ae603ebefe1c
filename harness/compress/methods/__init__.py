"""Ways to make a network smaller: a file each, with one function `compress(model, request)`.

It returns the masks of what is pruned, or changes the model itself and returns None. A method may
narrow what it can prune by a function `suited(model, names, resolution) -> names`.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # plans ask for names only, and do without torch
    from torch import nn

    from harness.compress.masks import Masks


def known() -> list[str]:
    """Names of the methods: of the files here."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


@dataclass(frozen=True)
class Request:
    """What is to be pruned, and how far.

    `sparsity` is the share of the weights (of `channel`: of the dense model's width) that are gone
    afterwards, `names` the weights to choose from, in the model's order, `previous` what
    an earlier level has pruned of them.
    """

    sparsity: float
    names: Sequence[str]
    previous: Masks | None = None
    scope: str = "global"  # or "layer"
    seed: int = 0  # of methods that draw
    widths: dict[str, int] | None = None  # channel: outputs of each layer of the plain model
    resolution: int = 0  # channel: pixels


def compress(method: str, model: nn.Module, request: Request) -> Masks | None:
    """Apply the method of that name. A pure function of model and request, on every rank alike."""
    found: Masks | None = _module(method).compress(model, request)
    return found


def suited(method: str, model: nn.Module, names: Sequence[str], resolution: int) -> list[str]:
    """Those of the prunable weights `names` that the method can prune; `resolution` in pixels."""
    narrowed = getattr(_module(method), "suited", None)
    return list(names) if narrowed is None else narrowed(model, names, resolution)


def _module(method: str):  # type: ignore[no-untyped-def]
    return importlib.import_module(f"harness.compress.methods.{method}")
