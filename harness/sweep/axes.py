"""Axes: names for scientific keys, and the values that a grid gives them."""

from __future__ import annotations

import typing
from collections.abc import Hashable, Iterator, Sequence
from typing import Any

from pydantic import BaseModel

from harness.errors import nearest
from harness.schema import TrialConfig

SHORT = {
    "width": "model.width",
    "depth": "model.depth",
    "family": "model.family",
    "sparsity": "compress.sparsity",
    "dense_long": "compress.dense_long",
    "schedule": "compress.magnitude_schedule",
    "surplus": "surplus.form",
    "magnitude": "augment.magnitude",
    "policy": "augment.policy",
    "epochs": "recipe.epochs",
    "batch_size": "recipe.batch_size",
    "lr": "recipe.optimizer.lr",
    "weight_decay": "recipe.optimizer.weight_decay",
    "label_smoothing": "recipe.label_smoothing",
    "train_size": "dataset.train_size",
    "seed": "seed",
}
"""Short names of the axes that sweeps are made of; every other key goes by its dotted path."""


def key_paths(model: type[BaseModel] = TrialConfig, prefix: str = "") -> Iterator[str]:
    """Every scientific key that holds a value, dotted."""
    for name, field in model.model_fields.items():
        annotation = field.annotation
        inner = [annotation, *typing.get_args(annotation)]
        nested = next((t for t in inner if isinstance(t, type) and issubclass(t, BaseModel)), None)
        if nested is None:
            yield prefix + name
        else:
            yield from key_paths(nested, f"{prefix}{name}.")


PATHS = frozenset(key_paths())
LONG = {path: name for name, path in SHORT.items()}
OPTIONS = ("compress.options.", "surplus.options.")
"""Before a name that a method or a form of surplus declares; `check.py` compares it with those."""


def resolve(name: str) -> tuple[str, str] | str:
    """(column name, key path) of an axis, or a sentence about a name that is none.

    An axis with a short name has that as its column, however it was written.
    """
    if name in SHORT:
        return name, SHORT[name]
    if name in PATHS or name.startswith(OPTIONS):
        return LONG.get(name, name), name
    return f"no such axis '{name}'{nearest(name, [*SHORT, *PATHS])}"


def repeated(values: Sequence[Any]) -> list[int]:
    """Where a value stands that stood before."""
    seen: set[Hashable] = set()
    found = []
    for i, key in enumerate(map(_key, values)):
        if key in seen:
            found.append(i)
        seen.add(key)
    return found


def _key(value: Any) -> Hashable:
    """Equal for equal values; `true` is not 1."""
    if isinstance(value, list | tuple):
        return tuple(map(_key, value))
    if isinstance(value, dict):
        return frozenset((name, _key(inner)) for name, inner in value.items())
    return isinstance(value, bool), value
