"""Replaces references to other keys, such as `${recipe.epochs}`, by the values of those keys.

References are replaced in each cell of a grid, after its axes are set, because they may point at
keys that an axis changes. A path begins at the top of the config, or with a dot at the reference's
own mapping. Nothing is called: the environment and files cannot be reached.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from harness.errors import UserError

START = "${"
MOST = 10_000  # references to references multiply
_REFERENCE = re.compile(r"\$\{\s*([\w.\[\]-]+)\s*\}")
Path = tuple[str, ...]


def has_reference(value: Any) -> bool:
    """Return whether a text of nested plain values refers to another key."""
    if isinstance(value, Mapping):
        return any(map(has_reference, value.values()))
    if isinstance(value, list | tuple):
        return any(map(has_reference, value))
    return isinstance(value, str) and START in value


def sources(value: Any) -> set[str]:
    """Return the top-level keys that the references in a value begin at; "" for relative ones."""
    if isinstance(value, Mapping):
        return set().union(*map(sources, value.values()))
    if isinstance(value, list | tuple):
        return set().union(*map(sources, value))
    texts = _REFERENCE.findall(value) if isinstance(value, str) else []
    return {re.split(r"[.\[]", text)[0] for text in texts}


def resolve(config: Mapping[str, Any], keys: Collection[str]) -> dict[str, Any]:
    """Return the top-level `keys` that `config` has, with references replaced.

    Raises:
        UserError: beginning with the key; a reference that points at nothing, or in a circle.
    """
    resolver = _Resolver(config)
    return {key: resolver.resolve(config[key], (key,), ()) for key in keys if key in config}


class _Resolver:
    """Replaces references in a config, `MOST` at most."""

    def __init__(self, config: Mapping[str, Any]):
        self.config = config
        self.count = 0

    def resolve(self, value: Any, place: Path, trail: tuple[Path, ...]) -> Any:
        """Return the value at `place`; `trail` are the references that led to it."""
        if isinstance(value, Mapping):
            return {k: self.resolve(v, (*place, str(k)), trail) for k, v in value.items()}
        if isinstance(value, list | tuple):
            items = enumerate(value)
            return [self.resolve(item, (*place, str(n)), trail) for n, item in items]
        if not isinstance(value, str) or START not in value:
            return value
        self.count += 1
        if place in trail or self.count > MOST:
            raise UserError(f"{'.'.join(place)}: {value} refers to itself: write the value out")
        if START in _REFERENCE.sub("", value):
            raise UserError(f"{'.'.join(place)}: {value!r} is not a reference such as ${{seed}}")
        if match := _REFERENCE.fullmatch(value):
            return self._target(match[1], place, trail)
        return _REFERENCE.sub(lambda match: str(self._target(match[1], place, trail)), value)

    def _target(self, text: str, place: Path, trail: tuple[Path, ...]) -> Any:
        """Return the value that the reference `text` at `place` points at."""
        dots = len(text) - len(text.lstrip("."))
        own = place[:-dots] if dots else ()
        path = (*own, *re.split(r"[.\[]+", text[dots:].replace("]", "")))
        trail = (*trail, place)
        value: Any = self.config
        for number, part in enumerate(path, start=1):
            try:
                value = value[int(part)] if isinstance(value, list | tuple) else value[part]
            except (KeyError, IndexError, ValueError, TypeError):
                raise UserError(
                    f"{'.'.join(place)}: ${{{text}}} points at a key that the grid does not give: "
                    "write the value out"
                ) from None
            if number == len(path) or isinstance(value, str):
                value = self.resolve(value, path[:number], trail)
        return value
