"""Reads the `key=value` arguments of every command.

    OPTIONS = {
        "lines": Option(int, default=20, low=0),
        "format": Option(default="screen", choices=("screen", "json")),
        "follow": Option(bool, default=False),
    }
    parse_options(["lines=50"], OPTIONS)    # {"lines": 50, "format": "screen", "follow": False}

A command declares its own options. `parse_options` is for commands without other arguments.
`split_options` and `read_arguments` return the other arguments, such as the overrides of a config,
to the caller. One pair of quotes around the value of an option is removed, as in an override.
"""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.errors import UserError, nearest

KINDS = {int: "a whole number", float: "a number"}


@dataclass(frozen=True)
class Option:
    """One `key=value` argument of a command: the type of its value, and which values are valid."""

    kind: type = str  # str, int, float, bool, or list for strings separated by commas
    default: Any = None
    choices: Collection[str] = ()
    low: float = -math.inf
    high: float = math.inf
    quantity: str = ""  # what a number counts, for messages: "a number of device-hours"
    example: str = ""  # a valid value, for messages
    required: bool = False


@dataclass(frozen=True)
class Arguments:
    """The parsed arguments of a command; `mistakes` are sentences."""

    options: dict[str, Any]
    others: list[tuple[str, str]]  # key and value of every argument that is not an option
    mistakes: list[str]


def read_arguments(args: Sequence[str], options: Mapping[str, Option]) -> Arguments:
    """Return the values of `options`, their defaults included, and the other arguments."""
    values: dict[str, Any] = {key: option.default for key, option in options.items()}
    others: list[tuple[str, str]] = []
    mistakes: list[str] = []
    arguments: dict[str, str] = {}  # the arguments so far, by their keys without Hydra's prefixes
    for arg in args:
        key, equals, value = arg.partition("=")
        name = key.lstrip("+~")
        if not equals or not name:
            mistakes.append(f"'{arg}' is not of the form key=value; --help shows the arguments")
            continue
        if (earlier := _conflicting(name, value, arguments)) is not None:
            mistakes.append(f"{name} is given twice, as {earlier} and {arg}: keep one of them")
            continue
        arguments[name] = arg
        if key not in options:
            others.append((key, value))
            continue
        try:
            values[key] = _converted(key, value, options[key])
        except ValueError as error:
            mistakes.append(str(error))
    for key, option in options.items():
        if option.required and key not in arguments:
            example = f", for example {key}={option.example}" if option.example else ""
            mistakes.append(f"{key} is missing: add {key}=VALUE{example}")
    return Arguments(values, others, mistakes)


def parse_options(args: Sequence[str], options: Mapping[str, Option]) -> dict[str, Any]:
    """Return the values of `options`. Raises UserError with every mistake, one a line."""
    read = read_arguments(args, options)
    unknown = [f"there is no option '{key}'{nearest(key, options)}" for key, _ in read.others]
    if mistakes := [*unknown, *read.mistakes]:
        raise UserError("\n".join(mistakes))
    return read.options


def split_options(
    args: Sequence[str], options: Mapping[str, Option]
) -> tuple[list[str], dict[str, Any]]:
    """Return the arguments that are not `options`, and the values of `options`.

    Raises UserError with every mistake, one a line.
    """
    read = read_arguments(args, options)
    if read.mistakes:
        raise UserError("\n".join(read.mistakes))
    return [f"{key}={value}" for key, value in read.others], read.options


def command_line(module: str, words: Iterable[str], *changes: str) -> str:
    """Return a command as it can be pasted into a shell; `changes` replace words of their keys."""
    keys = {change.partition("=")[0] for change in changes}
    kept = [word for word in words if word.lstrip("+").partition("=")[0] not in keys]
    return " ".join(["python -m", module, *map(shlex.quote, (*kept, *changes))])


def top_level(key: str) -> str:
    """Return `recipe` of `++recipe.optimizer.lr`."""
    return key.lstrip("+~").partition(".")[0]


def split_list(text: str) -> list[str]:
    """Return the items of `a,b` or `['a', 'b']`, without quotes around them."""
    items = (unquoted(item.strip()) for item in text.strip("[] ").split(","))
    return [item for item in items if item]


def unquoted(value: str) -> str:
    """Return a value without one pair of quotes around all of it."""
    quote = value[:1]
    if quote in ("'", '"') and len(value) > 1 and value.find(quote, 1) == len(value) - 1:
        return value[1:-1]
    return value


def _conflicting(name: str, value: str, arguments: Mapping[str, str]) -> str | None:
    """Return the argument in `arguments` that sets the same key as `name=value`, or None.

    `recipe={epochs: 2}` and `recipe.epochs=3` set the same key, too.
    """
    for earlier, arg in arguments.items():
        if earlier == name:
            return arg
        section, key = sorted((earlier, name), key=len)
        if not key.startswith(f"{section}."):
            continue
        mapping = arg.partition("=")[2] if section == earlier else value
        inner = key.removeprefix(f"{section}.").partition(".")[0]
        if re.search(rf"""^\{{(.*,)?\s*["']?{re.escape(inner)}["']?\s*:""", mapping):
            return arg
    return None


def _converted(key: str, value: str, option: Option) -> Any:
    """Return the value as the type of its option. Raises ValueError with a sentence."""
    example = f" (for example {key}={option.example})" if option.example else ""
    value = unquoted(value)
    if not value or (option.kind is list and not split_list(value)):
        raise ValueError(f"{key} has no value: write {key}=VALUE{example}")
    if option.kind is bool:
        if value.lower() not in ("true", "false"):
            raise ValueError(f"{key} is true or false, not '{value}'")
        return value.lower() == "true"
    if option.kind is list:
        return split_list(value)
    if option.kind in KINDS:
        return _number(key, value, option, example)
    if option.choices and value not in option.choices:
        raise ValueError(f"{key}={value} is not a valid choice{nearest(value, option.choices)}")
    return value


def _number(key: str, value: str, option: Option, example: str) -> float:
    try:
        number: float = option.kind(value)
        is_finite = math.isfinite(number)
    except (ValueError, OverflowError):  # a whole number may be too large for a float
        is_finite = False
    if not is_finite:
        quantity = option.quantity or KINDS[option.kind]
        raise ValueError(f"{key}={value} is not {quantity}{example}")
    if not option.low <= number <= option.high:
        bounds = f"{option.low} or more"
        if math.isfinite(option.high):
            bounds = f"{option.low} to {option.high}"
        raise ValueError(f"{key}={value} is out of range: {bounds} is valid")
    return number
