"""Collects everything that is wrong with a config, so that the user sees all of it at once."""

from __future__ import annotations

import re
import typing
from collections.abc import Collection, Container, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from harness.errors import UserError, nearest
from harness.plain_yaml import plain_spelling

Model = TypeVar("Model", bound=BaseModel)
Mistake = tuple[str, str]
"""The place of a mistake, such as `axes.width[2]` or `recipe.epochs`, and a sentence about it."""


class Mistakes:
    """Mistakes in the order in which they were found; equal ones are kept once."""

    def __init__(self) -> None:
        self._mistakes: dict[Mistake, None] = {}

    def __len__(self) -> int:
        return len(self._mistakes)

    def __iter__(self) -> Iterator[Mistake]:
        return iter(self._mistakes)

    def add(self, place: str, sentence: str) -> None:
        """Add a mistake at a place."""
        self._mistakes.setdefault((place, sentence))

    def add_sentence(self, sentence: str) -> None:
        """Add a mistake whose sentence names its place itself."""
        self.add("", sentence)

    def add_unknown_key(self, place: str, name: str, choices: Collection[str]) -> None:
        """Add a key that does not exist, with the nearest that does."""
        self.add(place, f"no such key '{name}'{nearest(name, choices)}")

    def extend(self, mistakes: Iterable[Mistake], places: Mapping[str, str]) -> None:
        """Add mistakes by key path; `places` says where in the grid file a key path is written."""
        for path, sentence in mistakes:
            self.add(places.get(path, path), sentence)

    def update(self, others: Mistakes) -> None:
        """Add the mistakes of `others`."""
        self._mistakes.update(others._mistakes)

    def remove_at(self, places: Container[str]) -> None:
        """Remove the mistakes at `places`."""
        self._mistakes = {mistake: None for mistake in self._mistakes if mistake[0] not in places}

    def places(self) -> set[str]:
        """Return the places that have a mistake."""
        return {place for place, _ in self._mistakes}

    def raise_any(self, subject: str) -> None:
        """Raise a UserError that lists all mistakes, one a line, if there are any."""
        if not self._mistakes:
            return
        count = "1 mistake" if len(self) == 1 else f"{len(self)} mistakes"
        lines = [
            f"{place}: {sentence}" if place else sentence for place, sentence in self._mistakes
        ]
        raise UserError("\n  ".join([f"{subject} {count}; nothing was run:", *lines]))


def validate(
    model: type[Model],
    values: Mapping[str, Any],
    mistakes: Mistakes,
    places: Mapping[str, str] | None = None,
    prefix: str = "",
    only: str | None = None,
) -> Model | None:
    """Return `values` as a model; if they are not valid, collect the mistakes and return None.

    `places` says where in the grid file a key path is written; other places are the key path
    after `prefix`. With `only`, mistakes at other key paths are left out.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        for item in error.errors():
            names = [str(part) for part in item["loc"] if not _is_union_tag(part)]
            path = ".".join(names)
            if only is not None and not (only.startswith(path) or path.startswith(only)):
                continue
            place = _place(path, places or {}, prefix)
            if item["type"] == "extra_forbidden":
                mistakes.add_unknown_key(place, names[-1], _field_names(model, names[:-1]))
            else:
                mistakes.add(place, _sentence(item) + _spelling(path, item))
    return None


def _spelling(path: str, item: Mapping[str, Any]) -> str:
    """Return how to write a text such as 4:00:00 that is not of its key's type; else ''."""
    if not item["type"].endswith("_type") or not isinstance(item["input"], str):
        return ""
    key = re.sub(r"(\.\d+)+$", "", path).rpartition(".")[2]
    spelling = plain_spelling(key, item["input"])
    return "" if spelling is None else f": write {spelling}"


def _place(path: str, places: Mapping[str, str], prefix: str) -> str:
    for axis, place in places.items():
        if path == axis or path.startswith(f"{axis}."):
            return place
    return re.sub(r"\.(\d+)\b", r"[\1]", prefix + path)


def _is_union_tag(part: str | int) -> bool:
    """Return whether pydantic added this part of a location to name a member of a union."""
    return isinstance(part, str) and (
        part.startswith(("literal[", "function-", "constrained-")) or part in ("float", "none")
    )


def nested_model(model: type[BaseModel], name: str) -> type[BaseModel] | None:
    """Return the model that the field `name` holds, or None for a plain value."""
    annotation = model.model_fields[name].annotation
    for candidate in (annotation, *typing.get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def _field_names(model: type[BaseModel], path: list[str]) -> list[str]:
    """Return the names of the fields of the model at `path` inside `model`."""
    for part in path:
        if part.isdecimal():  # an element of a tuple of models
            continue
        nested = nested_model(model, part)
        if nested is None:
            return []
        model = nested
    return list(model.model_fields)


def _sentence(item: Mapping[str, Any]) -> str:
    """Return one of pydantic's errors as a sentence that follows a key path."""
    kind, value, context = item["type"], item["input"], item.get("ctx", {})
    if kind == "missing":
        return "is missing: give it a value"
    if kind == "literal_error":
        choices = [c.strip(" '") for c in context["expected"].replace(" or ", ",").split(",")]
        return f"{value!r} is not one of the choices{nearest(str(value), choices)}"
    message = item["msg"].removeprefix("Value error, ")
    if kind == "value_error":
        return message
    return f"{message.removeprefix('Input ')}, not {value!r}"
