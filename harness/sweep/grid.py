"""Expands a grid into its trials.

A grid has axes, and fixed keys of a trial's config:

    axes:                        every combination
      width: [0.5, 1, 2]
    zip:                         groups of axes that move together
      - {epochs: [10, 20], lr: [0.2, 0.1]}
    also:                        further blocks, with their own axes, zip and fixed keys
      - set: {compress.dense_long: 0.8}
        axes: {magnitude: [none, 0.5]}
    exclude:                     conditions on the axes
      - width > 1 and magnitude == none

Three steps: `blocks.py` reads the blocks; each value is checked by itself, so that one wrong value
hides no other; then the cells that no condition excludes become trials. Every mistake is collected.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from harness.errors import UserError
from harness.schema import TrialConfig
from harness.store.identity import trial_id
from harness.sweep.axes import LONG
from harness.sweep.blocks import Block, Cell, read_blocks, section_of, with_settings, with_value
from harness.sweep.mistakes import Mistake, Mistakes, validate
from harness.sweep.schedules import depends_on_seed
from harness.sweep.trial import Trial
from harness.sweep.where import Condition, parse

CheckSections = Callable[[Mapping[str, Any]], Iterable[Mistake]]
"""Checks what the models cannot: data sets, families, policies. The argument maps top-level keys of
a trial's config to their models; sections that are not valid are absent."""
CheckTrial = Callable[[TrialConfig], Iterable[Mistake]]
"""Checks keys of a trial that depend on each other."""
CHECKED_SECTIONS = ("dataset", "model", "augment", "recipe")
"""The sections that a `CheckSections` looks at."""


@dataclass(frozen=True)
class Grid:
    """An expanded grid.

    `axes` are the columns of a cell; `rules` say how many cells each rule added or removed.
    """

    name: str
    axes: tuple[str, ...]
    trials: tuple[Trial, ...]
    rules: tuple[tuple[str, int], ...]


def make_grid(
    name: str,
    config: Mapping[str, Any],
    check_sections: CheckSections | None = None,
    check_trial: CheckTrial | None = None,
) -> Grid:
    """Return the grid of a composed config (plain dicts and lists).

    Raises:
        UserError: with one line for each mistake.
    """
    mistakes = Mistakes()
    grid = read_grid(name, config, mistakes, check_sections, check_trial)
    mistakes.raise_any(f"the grid {name} has")
    return grid


def read_grid(
    name: str,
    config: Mapping[str, Any],
    mistakes: Mistakes,
    check_sections: CheckSections | None = None,
    check_trial: CheckTrial | None = None,
) -> Grid:
    """Return the grid of a composed config, without the cells that have a mistake.

    The checks are called for each distinct combination that no condition excludes.
    """
    fixed = {key: config[key] for key in TrialConfig.model_fields if key in config}
    blocks = read_blocks(config, fixed, mistakes)
    columns = {axis.column: axis.path for block in blocks for axis in block.axes}
    excludes = _read_excludes(config.get("exclude"), columns, mistakes)
    for block in blocks:
        _check_values(block, mistakes)
        if excludes is None or not all(group.choices() for group in block.groups):
            block.is_valid = False
        if check_sections is not None and not block.is_valid:
            _check_without_cells(block, check_sections, mistakes)
    valid = [block for block in blocks if block.is_valid]
    expansion = _Expansion(columns, excludes or [], mistakes, check_sections, check_trial)
    for block in valid:
        expansion.add(block)
    return expansion.grid(name)


def _read_excludes(
    config: Any, columns: Mapping[str, str], mistakes: Mistakes
) -> list[Condition] | None:
    """Return the conditions of `exclude`, or None if one of them is wrong."""
    if config is None:
        return []
    if not isinstance(config, list):
        mistakes.add("exclude", "must be a list of conditions, such as ['width > 1']")
        return None
    conditions = []
    for number, text in enumerate(config):
        try:
            conditions.append(parse(text, set(columns)))
        except UserError as error:
            mistakes.add(f"exclude[{number}]", str(error))
    return conditions if len(conditions) == len(config) else None


# --- values, one by one -----------------------------------------------------------------------


def _check_values(block: Block, mistakes: Mistakes) -> None:
    """Check the fixed keys and each value of each axis; mark in the block what is not valid."""
    first = block.first_cell()
    config = with_settings(block.fixed, first)
    places = {path: place for path, _, place in first}
    found = Mistakes()
    validate(TrialConfig, config, found, places)
    # A mistake of a whole section says that its values do not fit together. Where some come from
    # axes, that is reported for each cell, since the cell may be excluded.
    found.remove_at({section_of(path) for path in places if "." in path})
    mistakes.update(found)
    invalid_places = found.places()
    if not invalid_places <= set(places.values()):  # in the fixed keys
        block.is_valid = False
    for group in block.groups:
        for axis in group.axes:
            if axis.setting(0).place in invalid_places:
                group.invalid.add(0)
            for position in range(1, len(axis.values)):
                path, value, place = axis.setting(position)
                changed = with_value(config, path, value)
                found = Mistakes()
                validate(TrialConfig, changed, found, {path: place}, only=path)
                if place in found.places():
                    group.invalid.add(position)
                    mistakes.update(found)


def _check_without_cells(block: Block, check: CheckSections, mistakes: Mistakes) -> None:
    """Check the sections of a block without valid cells, and each value of its axes by itself."""
    first = block.first_cell()
    config = with_settings(block.fixed, first)
    mistakes.extend(check(_valid_sections(config)), {path: place for path, _, place in first})
    for axis in block.axes:
        for position in range(1, len(axis.values)):
            path, value, place = axis.setting(position)
            found = check(_valid_sections(with_value(config, path, value)))
            mistakes.extend([mistake for mistake in found if mistake[0] == path], {path: place})


def _valid_sections(config: Mapping[str, Any]) -> dict[str, Any]:
    sections = {}
    for name in TrialConfig.model_fields:
        with contextlib.suppress(ValidationError):
            sections[name] = _build_section(name, config.get(name))
    return sections


def _build_section(name: str, value: Any) -> Any:
    """Return the model of a top-level key of a trial; `seed` is a plain value."""
    field = TrialConfig.model_fields[name]
    if value is None:
        return field.get_default()
    if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
        return field.annotation.model_validate(value)
    return value


# --- cells --------------------------------------------------------------------------------------


class _Expansion:
    """Collects the trials of one block after the other."""

    def __init__(
        self,
        columns: Mapping[str, str],
        excludes: list[Condition],
        mistakes: Mistakes,
        check_sections: CheckSections | None,
        check_trial: CheckTrial | None,
    ):
        self.columns = columns
        self.excludes = excludes
        self.mistakes = mistakes
        self.check_sections = check_sections
        self.check_trial = check_trial
        self.trials: dict[str, Trial] = {}
        self.rules: list[tuple[str, int]] = []
        self.removed = dict.fromkeys((condition.text for condition in excludes), 0)

    def add(self, block: Block) -> None:
        """Add the trials of a block."""
        checker = _CellChecker(block, self.check_sections, self.check_trial, self.mistakes)
        added = repeated = 0
        for cell, config in self._configs(block):
            added += 1
            if config is None:
                continue
            values = {column: _value_at(config, path) for column, path in self.columns.items()}
            rule = next((rule.text for rule in self.excludes if rule.holds(values)), None)
            if rule is not None:
                self.removed[rule] += 1
                continue
            checker.check(cell, config)
            trial = trial_id(config)
            if trial in self.trials:
                repeated += 1
            else:
                self.trials[trial] = Trial(trial, values, config)
        label = f"{block.place}axes and zip"
        self.rules.append((label, added))
        if repeated:
            self.rules.append((f"{label}: cells that are there already", -repeated))

    def grid(self, name: str) -> Grid:
        """Return the grid of all trials so far."""
        if not self.trials and not self.mistakes:
            self.mistakes.add("exclude", "removes every cell of the grid")
        removed = [(f"exclude {text}", -count) for text, count in self.removed.items()]
        trials = tuple(self.trials.values())
        return Grid(name, tuple(self.columns), trials, tuple(self.rules + removed))

    def _configs(self, block: Block) -> Iterator[tuple[Cell, TrialConfig | None]]:
        """Yield the cells of a block with their configs; None where values do not fit together."""
        builder = _ConfigBuilder(block)
        for cell in block.cells():
            try:
                yield cell, builder.build(cell)
            except ValidationError as error:
                settings = ", ".join(f"{LONG.get(path, path)}={value}" for path, value, _ in cell)
                reason = error.errors()[0]["msg"].removeprefix("Value error, ")
                sentence = f"the cell {settings}: {reason} (or exclude it)"
                self.mistakes.add(f"{block.place}axes", sentence)
                yield cell, None


class _CellChecker:
    """Checks the cells of a block, each distinct combination of values once.

    Within a block, the place of a value in the grid file stands for the value.
    """

    def __init__(
        self,
        block: Block,
        check_sections: CheckSections | None,
        check_trial: CheckTrial | None,
        mistakes: Mistakes,
    ):
        self.check_sections = check_sections
        self.check_trial = check_trial
        self.mistakes = mistakes
        self.in_sections = block.positions(CHECKED_SECTIONS)
        self.except_seed = block.positions(set(TrialConfig.model_fields) - {"seed"})
        self.checked_sections: set[tuple[str, ...]] = set()
        self.checked_trials: set[tuple[str, ...]] = set()

    def check(self, cell: Cell, config: TrialConfig) -> None:
        """Check a cell, unless an equal combination of values was checked before."""
        key = _places(cell, self.in_sections)
        if self.check_sections is not None and key not in self.checked_sections:
            self.checked_sections.add(key)
            self._add(self.check_sections(dict(config)), cell)
        every = range(len(cell))
        key = _places(cell, every if depends_on_seed(config.compress) else self.except_seed)
        if self.check_trial is not None and key not in self.checked_trials:
            self.checked_trials.add(key)
            self._add(self.check_trial(config), cell)

    def _add(self, mistakes: Iterable[Mistake], cell: Cell) -> None:
        self.mistakes.extend(mistakes, {path: place for path, _, place in cell})


class _ConfigBuilder:
    """Builds the configs of a block's cells; equal sections are validated once and shared."""

    def __init__(self, block: Block):
        self.fixed = block.fixed
        varying = dict.fromkeys(section_of(axis.path) for axis in block.axes)
        self.positions = {name: block.positions([name]) for name in varying}
        self.constant = {
            name: _build_section(name, block.fixed.get(name))
            for name in TrialConfig.model_fields
            if name not in varying
        }
        self.built: dict[tuple[str, ...], Any] = {}  # by the places of the values

    def build(self, cell: Cell) -> TrialConfig:
        """Return the config of a cell. Raises pydantic's ValidationError."""
        sections = dict(self.constant)
        for name, positions in self.positions.items():
            key = _places(cell, positions)
            if key not in self.built:
                settings = [cell[position] for position in positions]
                config = with_settings(self.fixed, settings)
                self.built[key] = _build_section(name, config.get(name))
            sections[name] = self.built[key]
        return TrialConfig.model_construct(**sections)


def _places(cell: Cell, positions: Iterable[int]) -> tuple[str, ...]:
    return tuple([cell[position].place for position in positions])


def _value_at(config: BaseModel, path: str) -> Any:
    value: Any = config
    for part in path.split("."):
        value = getattr(value, part, None)  # an option that only other blocks of the grid give
    return value
