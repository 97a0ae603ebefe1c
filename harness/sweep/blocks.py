"""Reads `axes`, `zip`, `also` and `set` of a grid file into blocks.

A block is a product of axes over fixed keys. The main block has the file's own axes; each entry of
`also` is a further block. Names and shapes are checked here; values are checked in `grid.py`.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from harness.sweep import axes as axis_names
from harness.sweep.mistakes import Mistakes

BLOCK_KEYS = ("axes", "zip", "set")


class Setting(NamedTuple):
    """One value of one axis. `place` is where the grid file has it, such as `axes.width[2]`."""

    path: str
    value: Any
    place: str


Cell = tuple[Setting, ...]
"""One value of every axis of a block."""


@dataclass(frozen=True)
class Axis:
    """A key of the config, the values that a block gives it, and where the file lists them."""

    column: str
    path: str
    values: list[Any]
    place: str

    def setting(self, position: int) -> Setting:
        """Return the value at a position."""
        return Setting(self.path, self.values[position], f"{self.place}[{position}]")


@dataclass
class AxisGroup:
    """Axes that move together: a group of `zip`, or a single axis of `axes`."""

    axes: list[Axis]
    invalid: set[int] = field(default_factory=set)  # positions with a value that is not valid

    def choices(self) -> list[tuple[Setting, ...]]:
        """Return the settings of all axes of the group, at each valid position."""
        return [
            tuple(axis.setting(position) for axis in self.axes)
            for position in range(len(self.axes[0].values))
            if position not in self.invalid
        ]


@dataclass
class Block:
    """A product of groups of axes over fixed keys.

    `place` begins the places of its mistakes: "" for the main block, `also[0].` and so on.
    `is_valid` says whether cells can be built from it.
    """

    place: str
    fixed: dict[str, Any]
    groups: list[AxisGroup] = field(default_factory=list)
    is_valid: bool = True

    @property
    def axes(self) -> list[Axis]:
        """The axes of all groups."""
        return [axis for group in self.groups for axis in group.axes]

    def positions(self, sections: Collection[str]) -> list[int]:
        """Return which settings of a cell belong to top-level keys of a trial's config."""
        return [n for n, axis in enumerate(self.axes) if section_of(axis.path) in sections]

    def first_cell(self) -> Cell:
        """Return the first value of every axis, valid or not."""
        return tuple(axis.setting(0) for axis in self.axes)

    def cells(self) -> Iterator[Cell]:
        """Yield every combination of valid values."""
        for choice in itertools.product(*(group.choices() for group in self.groups)):
            yield tuple(itertools.chain.from_iterable(choice))


def section_of(path: str) -> str:
    """Return the top-level key of a key path."""
    return path.partition(".")[0]


def with_value(config: Mapping[str, Any], path: str, value: Any) -> dict[str, Any]:
    """Return a copy of nested dicts with `value` at the dotted `path`; the rest is shared."""
    head, _, rest = path.partition(".")
    inner = config.get(head)
    changed = with_value(inner if isinstance(inner, dict) else {}, rest, value) if rest else value
    return {**config, head: changed}


def with_settings(config: Mapping[str, Any], settings: Iterable[Setting]) -> dict[str, Any]:
    """Return a copy of nested dicts with the values of some axes."""
    changed = dict(config)
    for path, value, _ in settings:
        changed = with_value(changed, path, value)
    return changed


def read_blocks(
    config: Mapping[str, Any], fixed: dict[str, Any], mistakes: Mistakes
) -> list[Block]:
    """Return the blocks of a composed grid: the main one, unless it is empty, and those of `also`.

    `fixed` are the keys of a trial that all blocks start from.
    """
    also = config.get("also") or []
    main = _read_block("", fixed, config, mistakes)
    blocks = [main] if main.groups or not also else []
    if not isinstance(also, list):
        mistakes.add("also", "must be a list of blocks, each with axes, zip or set")
        return blocks
    for number, entry in enumerate(also):
        place = f"also[{number}]"
        if not isinstance(entry, dict):
            mistakes.add(place, "must be a block with axes, zip or set")
            continue
        count = len(mistakes)
        for key in entry:
            if key not in BLOCK_KEYS:
                mistakes.add_unknown_key(f"{place}.{key}", str(key), BLOCK_KEYS)
        block_fixed = _read_set(fixed, entry.get("set"), f"{place}.set", mistakes)
        block = _read_block(f"{place}.", block_fixed, entry, mistakes)
        block.is_valid = len(mistakes) == count
        blocks.append(block)
    return blocks


def _read_set(fixed: dict[str, Any], keys: Any, place: str, mistakes: Mistakes) -> dict[str, Any]:
    """Return `fixed` with the keys that a block sets for all its cells."""
    if keys is None:
        return fixed
    if not isinstance(keys, dict):
        mistakes.add(place, "must map keys to values, such as {compress.dense_long: 0.8}")
        return fixed
    for key, value in keys.items():
        axis = axis_names.resolve(str(key))
        if axis is None:
            mistakes.add(f"{place}.{key}", f"no such key '{key}'{axis_names.suggestion(str(key))}")
        else:
            fixed = with_value(fixed, axis.path, value)
    return fixed


def _read_block(
    place: str, fixed: dict[str, Any], config: Mapping[str, Any], mistakes: Mistakes
) -> Block:
    """Return a block with the groups of its `axes` and `zip`."""
    count = len(mistakes)
    block = Block(place, fixed)
    used: set[str] = set()
    if config.get("axes") is not None:
        for axis in _read_axes(config["axes"], f"{place}axes", used, mistakes):
            for position in axis_names.repeated(axis.values):
                sentence = f"{axis.values[position]!r} is listed twice: leave one out"
                mistakes.add(f"{axis.place}[{position}]", sentence)
            block.groups.append(AxisGroup([axis]))
    if config.get("zip") is not None:
        block.groups += _read_zip(config["zip"], f"{place}zip", used, mistakes)
    block.is_valid = len(mistakes) == count
    return block


def _read_axes(config: Any, place: str, used: set[str], mistakes: Mistakes) -> list[Axis]:
    """Return the axes of a mapping from names to lists; `used` collects their key paths."""
    if not isinstance(config, dict):
        mistakes.add(place, "must map axes to lists of values, such as {width: [0.5, 1]}")
        return []
    axes = []
    for name, values in config.items():
        here = f"{place}.{name}"
        axis = axis_names.resolve(str(name))
        if axis is None:
            mistakes.add(here, f"no such axis '{name}'{axis_names.suggestion(str(name))}")
            continue
        if axis.path in used:
            mistakes.add(here, f"the axis {axis.column} is given twice in this block")
        used.add(axis.path)
        if not isinstance(values, list):
            mistakes.add(here, f"must be a list of values, not {values!r}: write [{values}]")
        elif not values:
            mistakes.add(here, "has no values: give at least one, or leave the axis out")
        else:
            axes.append(Axis(axis.column, axis.path, values, here))
    return axes


def _read_zip(config: Any, place: str, used: set[str], mistakes: Mistakes) -> list[AxisGroup]:
    """Return the groups of axes that move together."""
    if not isinstance(config, list):
        mistakes.add(place, "must be a list of groups, such as [{epochs: [1, 2], lr: [..]}]")
        return []
    groups = []
    for number, names in enumerate(config):
        here = f"{place}[{number}]"
        axes = _read_axes(names, here, used, mistakes)
        if len({len(axis.values) for axis in axes}) > 1:
            lengths = ", ".join(f"{axis.column} has {len(axis.values)}" for axis in axes)
            mistakes.add(here, f"axes that move together differ in length: {lengths}")
        elif axes:
            rows = list(zip(*(axis.values for axis in axes), strict=True))
            for position in axis_names.repeated(rows):
                mistakes.add(here, f"the values at position {position} are listed twice")
            groups.append(AxisGroup(axes))
    return groups
