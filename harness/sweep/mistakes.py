"""Everything that is wrong with a config, collected so that the user sees all of it at once."""

from __future__ import annotations

import re
import typing
from collections.abc import Collection, Iterable, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from harness.errors import UserError, nearest

Model = TypeVar("Model", bound=BaseModel)


class Mistakes:
    """Sentences by key path, each once, in the order of their finding."""

    def __init__(self) -> None:
        self.found: dict[str, None] = {}

    def add(self, place: str, sentence: str) -> None:
        """A mistake at a key path such as `axes.width[2]`."""
        self.found.setdefault(f"{place}: {sentence}")

    def add_sentence(self, sentence: str) -> None:
        """A mistake whose sentence names its place itself."""
        self.found.setdefault(sentence)

    def at(self, place: str, line: str | None = None) -> bool:
        """Whether there is one at a key path; or whether `line` is one of there."""
        return any(said.startswith(f"{place}: ") for said in ([line] if line else self.found))

    def unknown(self, place: str, name: str, choices: Collection[str]) -> None:
        """A key that does not exist, with the nearest that does."""
        self.add(place, f"no such key '{name}'{nearest(name, choices)}")

    def extend(self, found: Iterable[tuple[str, str]], places: Mapping[str, str]) -> None:
        """(key path, sentence) pairs; `places` says where in the file a key path was written."""
        for path, sentence in found:
            self.add(places.get(path, path), sentence)

    def raise_any(self, subject: str) -> None:
        """Raise a UserError with all of them, one a line, or do nothing."""
        if not self.found:
            return
        count = len(self.found)
        noun = "1 mistake" if count == 1 else f"{count} mistakes"
        raise UserError("\n  ".join([f"{subject} {noun}; nothing was run:", *self.found]))


def of_validation(
    model: type[Model],
    said: Mapping[str, Any],
    mistakes: Mistakes,
    places: Mapping[str, str] | None = None,
    prefix: str = "",
    only: str | None = None,
) -> Model | None:
    """`said` as a model, or None with its mistakes collected; `only` keeps those at that path."""
    try:
        return model.model_validate(said)
    except ValidationError as error:
        for item in error.errors():
            names = [str(part) for part in item["loc"] if not _tag(part, item)]
            path = ".".join(names)
            if only is not None and not (only.startswith(path) or path.startswith(only)):
                continue
            written = (at for at in places or {} if path == at or path.startswith(f"{at}."))
            axis = next(written, None)
            place = (places or {})[axis] if axis else re.sub(r"\.(\d+)\b", r"[\1]", prefix + path)
            if item["type"] == "extra_forbidden":
                mistakes.unknown(place, names[-1], _fields(model, names[:-1]))
            else:
                mistakes.add(place, _sentence(item))
    return None


def _tag(part: Any, item: Mapping[str, Any]) -> bool:
    """Parts of a location that pydantic adds for the members of a union."""
    return isinstance(part, str) and (
        part.startswith(("literal[", "function-", "constrained-")) or part in ("float", "none")
    )


def _fields(model: type[BaseModel], path: list[str]) -> list[str]:
    for part in path:
        if part.isdecimal():  # of a tuple of models
            continue
        annotation = model.model_fields[part].annotation
        inner = [annotation, *typing.get_args(annotation)]
        nested = next((t for t in inner if isinstance(t, type) and issubclass(t, BaseModel)), None)
        if nested is None:
            return []
        model = nested
    return list(model.model_fields)


def _sentence(item: Mapping[str, Any]) -> str:
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
