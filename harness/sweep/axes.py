"""The names of axes: short ones for keys that most sweeps vary, dotted key paths for the rest."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from types import UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel

from harness.errors import nearest
from harness.fields import canonical
from harness.schema import NoOptions, TrialConfig
from harness.states import STATES
from harness.sweep.mistakes import nested_model

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
"""Key paths by short name."""


def key_paths(model: type[BaseModel] = TrialConfig, prefix: str = "") -> Iterator[str]:
    """Yield the dotted path of every scientific key that holds a plain value."""
    for name in model.model_fields:
        nested = nested_model(model, name)
        if nested is None:
            yield prefix + name
        else:
            yield from key_paths(nested, f"{prefix}{name}.")


def choices(name: str) -> tuple[str, ...]:
    """Return the texts that a column may hold, or () if it may hold any."""
    if name == "state":
        return STATES
    model: type[BaseModel] = TrialConfig
    *sections, key = (axis_path(name) or "").split(".")
    for section in sections:
        model = nested_model(model, section) or NoOptions
    types = _types(model.model_fields[key].annotation) if key in model.model_fields else []
    return tuple(t for kind in types if get_origin(kind) is Literal for t in get_args(kind))


def _types(annotation: Any) -> list[Any]:
    """Return the types that an annotation joins, such as `Literal["none"]` and `float`."""
    arguments = get_args(annotation)
    if get_origin(annotation) in (Union, UnionType):
        return [kind for argument in arguments for kind in _types(argument)]
    return _types(arguments[0]) if get_origin(annotation) is Annotated else [annotation]


PATHS = frozenset(key_paths())
LONG = {path: name for name, path in SHORT.items()}
"""Short names by key path."""
OPTIONS = ("compress.options.", "surplus.options.")
"""A name that a method or a form of surplus declares follows; `check.py` compares it with those."""


class AxisName(NamedTuple):
    """An axis as a column of the rows, and as a key path of a trial's config."""

    column: str
    path: str


def resolve(name: str) -> AxisName | None:
    """Return the axis called `name` in a grid, or None if there is no such axis.

    The column of an axis that has a short name is that name, also where the grid uses the path.
    """
    if name in SHORT:
        return AxisName(name, SHORT[name])
    if name in PATHS or name.startswith(OPTIONS):
        return AxisName(LONG.get(name, name), name)
    return None


def axis_path(name: str) -> str | None:
    """Return the key path of the axis called `name`, or None if there is no such axis."""
    axis = resolve(name)
    return axis.path if axis else None


def value_at(config: BaseModel, path: str) -> Any:
    """Return the value of a key path; None for an option that the config does not have."""
    value: Any = config
    for part in path.split("."):
        value = getattr(value, part, None)
    return value


def suggestion(name: str) -> str:
    """Return ` (did you mean 'x'?)` with the nearest name of an axis, ready to append."""
    return nearest(name, [*SHORT, *PATHS])


def repeated(values: Sequence[Any]) -> list[int]:
    """Return the positions of values that are equal to an earlier one."""
    seen: set[Hashable] = set()
    positions = []
    for position, key in enumerate(map(_comparison_key, values)):
        if key in seen:
            positions.append(position)
        seen.add(key)
    return positions


def _comparison_key(value: Any) -> Hashable:
    """Return a key that is equal for equal values of YAML, in which `true` is not 1."""
    if isinstance(value, list | tuple):
        return tuple(map(_comparison_key, value))
    if isinstance(value, dict):
        return frozenset((name, _comparison_key(inner)) for name, inner in value.items())
    return isinstance(value, bool), canonical(value)
