"""Writes docs/keys.md, the page of every key: python docs/make_keys.py (a test finds a stale page).

Types, ranges and defaults come from the models in `harness/schema.py`, `run_schema.py` and
`cluster_schema.py`, and the sentence about a key from the comment behind it.
"""

from __future__ import annotations

import ast
import inspect
import io
import json
import sys
import textwrap
import tokenize
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from harness.cluster_schema import ClusterConfig
from harness.run_schema import RunConfig
from harness.schema import Options, TrialConfig
from harness.sweep.axes import LONG
from harness.sweep.mistakes import nested_model
from harness.sweep.settle import SettleConfig

PAGE = Path(__file__).with_name("keys.md")
INTRODUCTION = """# Keys

Every key that a grid, a profile of a cluster or the command line can set.
`python docs/make_keys.py` writes this page from the models of the config.

A key is written as nested YAML in a file (`recipe: {epochs: 3}`) and with dots on the command line
(`recipe.epochs=3`). An axis has the same name, or the short one in parentheses. Values of a data
set, a model, a recipe and a cluster come from the files of `grids/` and `slurm/cluster/` that a
grid chooses; "default" is the value where none of these files gives one.
"""
WORDS = {
    int: "whole number",
    float: "number",
    str: "text",
    bool: "true or false",
    types.NoneType: "null",
}
BOUNDS = {"gt": "above", "ge": "from", "lt": "below", "le": "up to", "max_length": "of at most"}


def main() -> None:
    """Write the page."""
    PAGE.write_text(page())


def page() -> str:
    """Return the content of the page."""
    parts = [INTRODUCTION]
    parts += _section(
        "Scientific keys: they change the numbers, and a stage's identity", TrialConfig, ""
    )
    parts += _section("Keys of settle: which trials are trained", SettleConfig, "settle.")
    parts += _section("Keys of a run: how a stage is executed", RunConfig, "run.")
    parts += _section("Keys of a cluster: where jobs run", ClusterConfig, "cluster.")
    parts.append(
        "`evaluate` lists what networks are evaluated on when their training ends: "
        "[evaluation.md](evaluation.md).\n"
    )
    parts.append(
        "`store` is the folder of finished stages. `axes`, `zip`, `also` and `exclude` say which "
        "trials a grid has: [grids.md](grids.md).\n"
    )
    return "\n".join(parts)


def _section(title: str, model: type[BaseModel], prefix: str) -> Iterator[str]:
    yield f"## {title}\n"
    yield "| key | value | default | meaning |\n| --- | --- | --- | --- |"
    yield from _rows(model, prefix)
    yield ""


def _rows(model: type[BaseModel], prefix: str) -> Iterator[str]:
    comments = _comments(model)
    for name, field in model.model_fields.items():
        nested = nested_model(model, name) or _item_model(field)
        if nested is not None and nested is not Options:
            repeated = "[]" if nested is _item_model(field) else ""
            yield from _rows(nested, f"{prefix}{name}{repeated}.")
            continue
        key = f"`{prefix}{name}`" + _short_name(prefix + name)
        cells = (key, _type(field.annotation, field.metadata), _default(field), comments[name])
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _short_name(path: str) -> str:
    name = LONG.get(path, path)
    return "" if name == path else f" (`{name}`)"


def _item_model(field: FieldInfo) -> type[BaseModel] | None:
    """Return the model of the items of a list of models, or None for other fields."""
    items = typing.get_args(field.annotation)
    is_model = (
        items
        and types.NoneType not in items
        and isinstance(items[0], type)
        and issubclass(items[0], BaseModel)
    )
    return items[0] if is_model else None


def _comments(model: type[BaseModel]) -> Mapping[str, str]:
    """Return the comment behind, or above, each key of a model and of its bases."""
    comments: dict[str, str] = {}
    for base in reversed(model.__mro__):
        if not issubclass(base, BaseModel) or base.__module__.startswith("pydantic"):
            continue
        source = textwrap.dedent(inspect.getsource(base))
        tokens = tokenize.generate_tokens(io.StringIO(source).readline)
        by_line = {t.start[0]: t.string.lstrip("# ") for t in tokens if t.type == tokenize.COMMENT}
        body = typing.cast(ast.ClassDef, ast.parse(source).body[0]).body
        for node in body:
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                lines = (*range(node.lineno, (node.end_lineno or 0) + 1), node.lineno - 1)
                texts = [by_line[line] for line in lines if line in by_line]
                comments[node.target.id] = texts[0] if texts else ""
    return comments


def _type(annotation: Any, metadata: list[Any]) -> str:
    """Return a type in words, with its range."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _type(arguments[0], [*arguments[1:], *metadata])
    if annotation is Options:
        return "mapping"
    if origin is Literal:
        text = ", ".join(f"`{value}`" for value in arguments)
    elif origin in (typing.Union, types.UnionType):
        text = " or ".join(dict.fromkeys(_type(argument, []) for argument in arguments))
    elif origin is tuple:
        number = "list" if Ellipsis in arguments else f"list of {len(arguments)}"
        text = f"{number}: {_type(arguments[0], [])}"
    elif origin is dict:
        text = f"mapping: {_type(arguments[1], [])}"
    else:
        text = WORDS[annotation]
    return " ".join([text, *_bounds(metadata)])


def _bounds(metadata: list[Any]) -> list[str]:
    """Return the limits of a number or a text in words."""
    items = [item for entry in metadata for item in getattr(entry, "metadata", [entry])]
    bounds = []
    for name, word in BOUNDS.items():
        for item in items:
            if (value := getattr(item, name, None)) is not None:
                bounds.append(f"{word} {value}")
    return bounds


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True, validated_data={})
    if isinstance(value, Options):
        return "`{}`"
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


if __name__ == "__main__":
    sys.exit(main())
