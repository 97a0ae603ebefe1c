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
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError

from harness.augment import policy
from harness.errors import UserError
from harness.schema import AugmentConfig, CompressConfig, TeacherConfig, TrialConfig
from harness.store.identity import digest, trial_id
from harness.sweep import tables
from harness.sweep.axes import LONG, value_at
from harness.sweep.blocks import SECTIONS, Block, Cell, Setting, read_blocks, section_of
from harness.sweep.mistakes import Mistake, Mistakes, validate
from harness.sweep.references import has_reference
from harness.sweep.schedules import MATCHED, depends_on_seed
from harness.sweep.where import Condition, parse

MOST_CELLS = 1_000_000
OPERATIONAL = ("run", "cluster", "store")
"""Top-level keys of a config that hold for all trials."""
CheckSections = Callable[[Mapping[str, Any]], Iterable[Mistake]]
"""Checks what the models cannot: data sets, families, policies. The argument maps top-level keys of
a trial's config to their models; sections that are not valid are absent."""
CheckTrial = Callable[[TrialConfig], Iterable[Mistake]]
"""Checks keys of a trial that depend on each other."""
CHECKED_SECTIONS = ("dataset", "model", "augment", "recipe")
"""The sections that a `CheckSections` looks at."""


@dataclass(frozen=True)
class Trial:
    """One cell of a grid, one row of the results. `cell` has its value on every axis."""

    id: str
    cell: Mapping[str, Any]
    config: TrialConfig


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


class Chosen(NamedTuple):
    """A key that has one value for all trials: by the grid file, or by the command line.

    `place` is the key in the file, or the word of the command line, whose value is `text`.
    """

    path: str
    place: str
    text: str | None = None


def read_grid(
    name: str,
    config: Mapping[str, Any],
    mistakes: Mistakes,
    check_sections: CheckSections | None = None,
    check_trial: CheckTrial | None = None,
    chosen: Iterable[Chosen] = (),
    unused_rules: bool = False,
    folder: Path = Path(),
) -> Grid:
    """Return the grid of a composed config, without the cells that have a mistake.

    The checks are called for each distinct combination that no condition excludes. An axis that
    changes a key of `chosen` is a mistake, and so is a condition of `exclude` that holds for no
    cell, unless `unused_rules` allows it. Tables are looked up in `folder` first.
    """
    blocks = read_blocks(config, folder, mistakes)
    columns = {axis.column: axis.path for block in blocks for axis in block.axes}
    excludes = _read_excludes(config.get("exclude"), columns, mistakes)
    _refuse_changes(blocks, chosen, mistakes)
    for block in blocks:
        _check_operational(block, mistakes)
        _check_values(block, mistakes)
        if excludes is None or not all(group.choices() for group in block.groups):
            block.is_valid = False
        if check_sections is not None and not block.is_valid:
            _check_without_cells(block, check_sections, mistakes)
    valid = [block for block in blocks if block.is_valid]
    cells = sum(block.number_of_cells() for block in valid)
    if cells > MOST_CELLS:
        mistakes.add("axes", f"make {cells:,} cells; {MOST_CELLS:,} are allowed: list fewer values")
        valid = []
    expansion = _Expansion(columns, excludes or [], mistakes, check_sections, check_trial)
    for block in valid:
        expansion.add(block)
    return expansion.grid(name, unused_rules)


def _refuse_changes(
    blocks: Collection[Block], chosen: Iterable[Chosen], mistakes: Mistakes
) -> None:
    """Refuse axes, and keys of `set`, that change what was chosen for all trials.

    A key of the grid file may hold for the main block and be changed in `also`. A word of the
    command line must hold everywhere.
    """
    by_block = [{**b.set_places, **{axis.path: axis.place for axis in b.axes}} for b in blocks]
    changes = [change for places in by_block for change in places.items()]
    for path, place, text in chosen:
        # a word may name an item of a list: `recipe.schedule.milestones.0`
        others = [at for key, at in changes if f"{path}.".startswith(f"{key}.")]
        if text is None and len(others) == len(blocks) and others:
            mistakes.add(place, f"{others[0]} sets this key in each cell: leave one of the two out")
        elif text is not None and others:
            is_axis = all((path, at) in changes and at.startswith("axes.") for at in others)
            remedy = f"write {others[0]}=[{text}]" if is_axis else "change it in the grid file"
            mistakes.add(place, f"{others[0]} of the grid sets this key in each cell: {remedy}")


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


def _check_operational(block: Block, mistakes: Mistakes) -> None:
    """Refuse references of operational keys, which hold for all trials, to keys of axes."""
    for section in OPERATIONAL:
        if not has_reference(block.fixed.get(section)):
            continue
        with contextlib.suppress(UserError):  # a reference to nothing is reported elsewhere
            base = block.config([], [section])
            for axis in block.axes:
                for position in range(len(axis.values)):
                    if block.config([axis.setting(position)], [section]) != base:
                        sentence = f"refers to a key that {axis.place} changes: write the value out"
                        mistakes.add(section, sentence)


def _check_values(block: Block, mistakes: Mistakes) -> None:
    """Check the fixed keys and each value of each axis; mark in the block what is not valid."""
    first = block.first_cell()
    places = {path: place for path, _, place in first}
    own = Mistakes()
    if (config := _config(block, first, own)) is None:
        block.is_valid = False
        mistakes.update(own)
        return
    validate(TrialConfig, config, own, {**block.set_places, **places})
    # A mistake of a whole section says that its values do not fit together. Where some come from
    # axes, that is reported for each cell, since the cell may be excluded.
    own.remove_at({section_of(path) for path in places if "." in path})
    mistakes.update(own)
    invalid_places = own.places()
    if not invalid_places <= set(places.values()):  # in the fixed keys
        block.is_valid = False
    for group in block.groups:
        for axis in group.axes:
            if axis.setting(0).place in invalid_places:
                group.invalid.add(0)
            for position in range(1, len(axis.values)):
                path, _, place = setting = axis.setting(position)
                of_value = Mistakes()
                changed = _config(block, (*first, setting), of_value)
                if changed is not None:
                    validate(TrialConfig, changed, of_value, {path: place}, only=path)
                if changed is None or place in of_value.places():
                    group.invalid.add(position)
                    mistakes.update(of_value)


def _config(block: Block, settings: Iterable[Setting], mistakes: Mistakes) -> dict[str, Any] | None:
    """Return a block's config with some settings; collect what is wrong with its references."""
    try:
        return block.config(settings)
    except UserError as error:
        mistakes.add_sentence(str(error))
        return None


def _check_without_cells(block: Block, check: CheckSections, mistakes: Mistakes) -> None:
    """Check the sections of a block without valid cells, and each value of its axes by itself."""
    first = block.first_cell()
    config = _config(block, first, mistakes)
    mistakes.extend(
        check(_valid_sections(block, config)), {path: place for path, _, place in first}
    )
    for axis in block.axes:
        for position in range(1, len(axis.values)):
            path, _, place = setting = axis.setting(position)
            sections = _valid_sections(block, _config(block, (*first, setting), mistakes))
            of_value = [mistake for mistake in check(sections) if mistake[0] == path]
            mistakes.extend(of_value, {path: place})


def _valid_sections(block: Block, config: Mapping[str, Any] | None) -> dict[str, Any]:
    sections: dict[str, Any] = {}
    if config is None:
        return sections
    for name in SECTIONS:
        with contextlib.suppress(ValidationError, UserError):
            sections[name] = _build_section(name, config.get(name), block.folder)
    return sections


def _build_section(name: str, value: Any, folder: Path) -> Any:
    """Return the model of a top-level key of a trial; `seed` is a plain value.

    Tables are looked up in `folder`, and named by their file names and content. Raises UserError.
    """
    field = TrialConfig.model_fields[name]
    if value is None and not field.is_required():
        return field.get_default()
    if not isinstance(field.annotation, type) or not issubclass(field.annotation, BaseModel):
        return value
    section = field.annotation.model_validate(value)
    update: dict[str, object] = {}
    if isinstance(section, AugmentConfig):
        update = {"policy": policy.without_folder(section.policy, folder)}
    elif isinstance(section, CompressConfig) and section.magnitude_schedule.startswith(MATCHED):
        table = section.magnitude_schedule.removeprefix(MATCHED)
        update = {"magnitude_schedule": MATCHED + tables.without_folder(table, folder)}
    elif isinstance(section, TeacherConfig) and section.target_table is not None:
        update = {"target_table": tables.without_folder(section.target_table, folder)}
    section = section.model_copy(update=update) if update else section
    digest(section.model_dump(mode="json"))
    return section


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
        self.matched: set[str] = set()

    def add(self, block: Block) -> None:
        """Add the trials of a block.

        Equal sections are built once, and equal combinations of values are checked once. Within a
        block, the place of a value in the grid file stands for the value.
        """
        label = f"{block.place}axes and zip"
        positions = {name: block.positions([name]) for name in SECTIONS}
        in_sections = block.positions(CHECKED_SECTIONS)
        except_seed = block.positions(set(SECTIONS) - {"seed"})
        built: dict[tuple[str, ...], Any] = {}
        checked: set[tuple[object, ...]] = set()
        added = repeated = 0
        for cell in block.cells():
            added += 1
            places = [setting.place for setting in cell]
            try:
                sections = {}
                for name in SECTIONS:
                    key = (name, *[places[position] for position in positions[name]])
                    if key not in built:
                        value = block.config(cell, [name]).get(name)
                        built[key] = _build_section(name, value, block.folder)
                    sections[name] = built[key]
            except (ValidationError, UserError) as error:
                self._add_cell_mistake(block, cell, error)
                continue
            config = TrialConfig.model_construct(**sections)
            values = {column: value_at(config, path) for column, path in self.columns.items()}
            if self._is_excluded(values):
                continue
            section_key = ("sections", *[places[position] for position in in_sections])
            if self.check_sections is not None and section_key not in checked:
                checked.add(section_key)
                self._extend(self.check_sections(dict(config)), cell)
            every = range(len(cell))
            decisive = every if depends_on_seed(config.compress) else except_seed
            trial_key = ("trial", *[places[position] for position in decisive])
            if self.check_trial is not None and trial_key not in checked:
                checked.add(trial_key)
                self._extend(self.check_trial(config), cell)
            trial = trial_id(config)
            if trial in self.trials:
                repeated += 1
            else:
                self.trials[trial] = Trial(trial, values, config)
        self.rules.append((label, added))
        if repeated:
            self.rules.append((f"{label}: cells that are there already", -repeated))

    def grid(self, name: str, unused_rules: bool) -> Grid:
        """Return the grid of all trials so far."""
        if not self.mistakes:
            if not self.trials:
                self.mistakes.add("exclude", "removes every cell of the grid")
            elif not unused_rules:
                for number, condition in enumerate(self.excludes):
                    if condition.text not in self.matched:
                        sentence = (
                            f"{condition.text!r} holds for no cell: correct it or leave it out"
                        )
                        self.mistakes.add(f"exclude[{number}]", sentence)
        removed = [(f"exclude {text}", -count) for text, count in self.removed.items()]
        trials = tuple(self.trials.values())
        return Grid(name, tuple(self.columns), trials, tuple(self.rules + removed))

    def _is_excluded(self, values: Mapping[str, Any]) -> bool:
        """Return whether a condition excludes a cell; count the cell for the first that does."""
        texts = [condition.text for condition in self.excludes if condition.holds(values)]
        self.matched.update(texts)
        if texts:
            self.removed[texts[0]] += 1
        return bool(texts)

    def _extend(self, mistakes: Iterable[Mistake], cell: Cell) -> None:
        self.mistakes.extend(mistakes, {path: place for path, _, place in cell})

    def _add_cell_mistake(
        self, block: Block, cell: Cell, error: ValidationError | UserError
    ) -> None:
        """Add that the values of a cell do not fit together."""
        settings = ", ".join(f"{LONG.get(path, path)}={value}" for path, value, _ in cell)
        reason = str(error)
        if isinstance(error, ValidationError):
            first = error.errors()[0]
            key = ".".join(str(part) for part in first["loc"])
            reason = f"{key} {first['msg'].removeprefix('Value error, ')}".strip()
        sentence = f"the cell {settings}: {reason} (or exclude it)"
        self.mistakes.add(f"{block.place}axes", sentence)
