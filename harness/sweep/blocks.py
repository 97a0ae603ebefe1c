"""Reads `axes`, `zip`, `also` and `set` of a grid file into blocks.

A block is a product of axes over fixed keys. The main block has the file's own axes; each entry of
`also` is a further block. Names and shapes are checked here; values are checked in `grid.py`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from harness.errors import UserError
from harness.schema import TrialConfig
from harness.sweep import axes as axis_names
from harness.sweep.mistakes import Mistakes
from harness.sweep.references import has_reference, resolve, sources

LANGUAGE = ("axes", "zip", "also", "exclude")
"""Top-level keys of a grid that say which trials it has."""
BLOCK_KEYS = ("axes", "zip", "set")
SECTIONS = tuple(TrialConfig.model_fields)
"""Top-level keys of a trial's config."""


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

    `place` begins the places of its mistakes: "" for the main block, `also[0].` and so on. `fixed`
    is the composed config with the keys that the block sets, and `set_places` says where those
    are. Tables lie in `folder`. `is_valid` says whether cells can be built from it.
    """

    place: str
    fixed: dict[str, Any]
    folder: Path
    set_places: dict[str, str] = field(default_factory=dict)
    groups: list[AxisGroup] = field(default_factory=list)
    is_valid: bool = True

    @property
    def axes(self) -> list[Axis]:
        """The axes of all groups."""
        return [axis for group in self.groups for axis in group.axes]

    def positions(self, sections: Collection[str]) -> list[int]:
        """Return which settings of a cell decide these top-level keys, by references also."""
        if "" in (needed := self._needed_sections(sections)):  # relative references
            return list(range(len(self.axes)))
        return [n for n, axis in enumerate(self.axes) if section_of(axis.path) in needed]

    def _needed_sections(self, sections: Collection[str]) -> set[str]:
        """Return `sections` and the top-level keys that their references need, directly or not."""
        needed: set[str] = set()
        waiting = set(sections)
        while waiting:
            section = waiting.pop()
            needed.add(section)
            values = [axis.values for axis in self.axes if section_of(axis.path) == section]
            waiting |= sources([self.fixed.get(section), values]) - needed
        return needed

    def config(self, settings: Iterable[Setting], keys: Iterable[str] = SECTIONS) -> dict[str, Any]:
        """Return top-level keys of the config with these settings. Raises UserError.

        References to other keys are replaced.
        """
        config = with_settings(self.fixed, settings)
        present = [key for key in keys if key in config]
        if any(has_reference(config[key]) for key in present):
            return resolve(config, present)
        return {key: config[key] for key in present}

    def first_cell(self) -> Cell:
        """Return the first value of every axis, valid or not."""
        return tuple(axis.setting(0) for axis in self.axes)

    def number_of_cells(self) -> int:
        """Return how many combinations of valid values there are."""
        return math.prod(len(group.choices()) for group in self.groups)

    def cells(self) -> Iterator[Cell]:
        """Yield every combination of valid values."""
        for choice in itertools.product(*(group.choices() for group in self.groups)):
            yield tuple(itertools.chain.from_iterable(choice))


def section_of(path: str) -> str:
    """Return the top-level key of a key path."""
    return path.partition(".")[0]


def with_value(config: Mapping[str, Any], path: str, value: Any) -> dict[str, Any]:
    """Return a copy of nested dicts with `value` at the dotted `path`; the rest is shared.

    Raises UserError where a reference stands for the whole mapping that the path goes through.
    """
    head, _, rest = path.partition(".")
    inner = config.get(head)
    if rest and has_reference(inner) and isinstance(inner, str):
        raise UserError(f"{head} is {inner}, so {rest} cannot be set in it: write its keys out")
    changed = with_value(inner if isinstance(inner, dict) else {}, rest, value) if rest else value
    return {**config, head: changed}


def with_settings(config: Mapping[str, Any], settings: Iterable[Setting]) -> dict[str, Any]:
    """Return a copy of nested dicts with the values of some axes."""
    changed = dict(config)
    for path, value, _ in settings:
        changed = with_value(changed, path, value)
    return changed


def read_blocks(config: Mapping[str, Any], folder: Path, mistakes: Mistakes) -> list[Block]:
    """Return the blocks of a composed grid: the main one, unless it is empty, and those of `also`.

    All blocks start from the fixed keys of the config.
    """
    fixed = {key: value for key, value in config.items() if key not in LANGUAGE}
    also = config.get("also")
    main = _read_block(Block("", fixed, folder), config, mistakes)
    blocks = [main] if main.groups or not also else []
    if also is None:
        return blocks
    if not isinstance(also, list) or not also:
        mistakes.add("also", "must be a list of blocks, each with axes, zip or set")
        return blocks
    for number, entry in enumerate(also):
        place = f"also[{number}]"
        if not isinstance(entry, dict) or not any(entry.values()):
            mistakes.add(place, "must be a block with axes, zip or set")
            continue
        count = len(mistakes)
        for key in entry:
            if key not in BLOCK_KEYS:
                mistakes.add_unknown_key(f"{place}.{key}", str(key), BLOCK_KEYS)
        block = Block(f"{place}.", fixed, folder)
        _read_set(block, entry.get("set"), mistakes)
        _read_block(block, entry, mistakes)
        block.is_valid = len(mistakes) == count
        blocks.append(block)
    return blocks


def _read_set(block: Block, keys: Any, mistakes: Mistakes) -> None:
    """Set the keys that a block sets for all its cells."""
    place = f"{block.place}set"
    if keys is None:
        return
    if not isinstance(keys, dict):
        mistakes.add(place, "must map keys to values, such as {compress.dense_long: 0.8}")
        return
    for key, value in keys.items():
        axis, here = axis_names.resolve(str(key)), f"{place}.{key}"
        if axis is None:
            mistakes.add(here, f"no such key '{key}'{axis_names.suggestion(str(key))}")
        elif axis.path in block.set_places:
            mistakes.add(here, f"is the same key as {block.set_places[axis.path]}: leave one out")
        else:
            block.set_places[axis.path] = here
            try:
                block.fixed = with_value(block.fixed, axis.path, value)
            except UserError as error:
                mistakes.add(here, str(error))


def _read_block(block: Block, config: Mapping[str, Any], mistakes: Mistakes) -> Block:
    """Give a block the groups of its `axes` and `zip`, and return it."""
    count, place = len(mistakes), block.place
    used = dict(block.set_places)
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


def _read_axes(config: Any, place: str, used: dict[str, str], mistakes: Mistakes) -> list[Axis]:
    """Return the axes of a mapping from names to lists; `used` collects places by key path."""
    if not isinstance(config, dict) or not config:
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
            mistakes.add(here, f"is the same key as {used[axis.path]}: leave one of the two out")
        used[axis.path] = here
        if not isinstance(values, list):
            mistakes.add(here, f"must be a list of values, not {values!r}: write [{values}]")
        elif not values:
            mistakes.add(here, "has no values: give at least one, or leave the axis out")
        else:
            axes.append(Axis(axis.column, axis.path, values, here))
    return axes


def _read_zip(config: Any, place: str, used: dict[str, str], mistakes: Mistakes) -> list[AxisGroup]:
    """Return the groups of axes that move together."""
    if not isinstance(config, list) or not config:
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
