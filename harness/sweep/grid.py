"""The grid language: `axes`, `zip`, `also`, `exclude` over a fixed rest, expanded into trials.

    axes:                        every combination
      width: [0.5, 1, 2]
    zip:                         groups of axes that move together
      - {epochs: [10, 20], lr: [0.2, 0.1]}
    also:                        further blocks, with their own axes, zip and fixed keys
      - set: {compress.dense_long: 0.8}
        axes: {magnitude: [none, 0.5]}
    exclude:                     conditions on the axes
      - width > 1 and magnitude == none

Every mistake is collected with its key path: a wrong value keeps no other from being looked at.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ValidationError

from harness.errors import UserError
from harness.schema import TrialConfig
from harness.store.identity import trial_id
from harness.sweep import axes as axis_names
from harness.sweep.mistakes import Mistakes, of_validation
from harness.sweep.trial import Trial
from harness.sweep.where import Condition, parse

BLOCK_KEYS = ("axes", "zip", "set")
Value = Any


@dataclass(frozen=True)
class Grid:
    """`axes` are the columns of a cell; `rules` say how many cells each rule made or removed."""

    name: str
    axes: tuple[str, ...]
    trials: tuple[Trial, ...]
    rules: tuple[tuple[str, int], ...]


@dataclass
class _Group:
    """Axes that move together, mostly one: (column, key path, values); written at `place`."""

    place: str
    axes: list[tuple[str, str, list[Value]]]
    bad: set[int] = field(default_factory=set)  # positions of wrong values

    def choices(self) -> list[tuple[tuple[str, Value, str], ...]]:
        """(key path, value, place) of each axis, at each position that is right."""
        return [
            tuple(
                (path, values[i], f"{self.place}.{name}[{i}]") for name, path, values in self.axes
            )
            for i in range(len(self.axes[0][2]))
            if i not in self.bad
        ]


@dataclass
class _Block:
    """One product of axes over fixed keys; `sound` where its cells can be built."""

    place: str
    fixed: dict[str, Any]
    groups: list[_Group] = field(default_factory=list)
    sound: bool = True

    def columns(self) -> dict[str, str]:
        return {column: path for group in self.groups for column, path, _ in group.axes}

    def points(self) -> Iterator[tuple[tuple[str, Value, str], ...]]:
        """Key paths, values and their places of every cell."""
        for choice in itertools.product(*(group.choices() for group in self.groups)):
            yield tuple(itertools.chain.from_iterable(choice))


def make_grid(
    name: str, said: Mapping[str, Any], check: Any = None, check_cell: Any = None
) -> Grid:
    """Expand what a grid file says (plain dicts and lists) into its trials.

    Raises:
        UserError: with every mistake on a line of its own.
    """
    mistakes = Mistakes()
    grid = read_grid(name, said, mistakes, check, check_cell)
    mistakes.raise_any(f"the grid {name} has")
    return grid


def read_grid(
    name: str,
    said: Mapping[str, Any],
    mistakes: Mistakes,
    check: Any = None,
    check_cell: Any = None,
) -> Grid:
    """`make_grid` that collects; of a grid with mistakes it has the cells that are without one.

    `check(sections) -> list[(key path, sentence)]` looks at what the models cannot: data sets,
    families, policies. `sections` maps top-level keys to their models; wrong ones are left out, so
    that the others are looked at all the same. `check_cell(trial_config)` looks at keys that depend
    on each other. Both are asked for each distinct combination that no condition excludes.
    """
    fixed = {key: said[key] for key in TrialConfig.model_fields if key in said}
    blocks = _blocks(said, fixed, mistakes)
    columns: dict[str, str] = {}
    for block in blocks:
        columns.update(block.columns())
    excludes = _excludes(said.get("exclude"), columns, mistakes)
    for block in blocks:
        _validate(block, mistakes)
        block.sound &= excludes is not None and all(group.choices() for group in block.groups)
        if check is not None and not block.sound:
            _check_sections(block, check, mistakes)
    whole = [block for block in blocks if block.sound]
    return _expand(name, whole, columns, excludes or [], mistakes, (check, check_cell))


def _blocks(said: Mapping[str, Any], fixed: dict[str, Any], mistakes: Mistakes) -> list[_Block]:
    main = _Block("", fixed)
    before = len(mistakes.found)
    _groups(main, said.get("axes"), said.get("zip"), "", mistakes)
    main.sound = len(mistakes.found) == before
    blocks = [main] if main.groups or not said.get("also") else []
    also = said.get("also") or []
    if not isinstance(also, list):
        mistakes.add("also", "must be a list of blocks, each with axes, zip or set")
        return blocks
    for number, entry in enumerate(also):
        place = f"also[{number}]."
        if not isinstance(entry, dict):
            mistakes.add(place[:-1], "must be a block with axes, zip or set")
            continue
        before = len(mistakes.found)
        for key in entry:
            if key not in BLOCK_KEYS:
                mistakes.unknown(place + str(key), str(key), BLOCK_KEYS)
        block = _Block(place, _with_set(fixed, entry.get("set"), place, mistakes))
        _groups(block, entry.get("axes"), entry.get("zip"), place, mistakes)
        block.sound = len(mistakes.found) == before
        blocks.append(block)
    return blocks


def _with_set(fixed: dict[str, Any], keys: Any, place: str, mistakes: Mistakes) -> dict[str, Any]:
    if keys is None:
        return fixed
    if not isinstance(keys, dict):
        mistakes.add(f"{place}set", "must map keys to values, such as {compress.dense_long: 0.8}")
        return fixed
    for key, value in keys.items():
        found = axis_names.resolve(str(key))
        if isinstance(found, str):
            mistakes.add(f"{place}set.{key}", found.replace("axis", "key"))
        else:
            fixed = put(fixed, found[1], value)
    return fixed


def put(config: Mapping[str, Any], path: str, value: Value) -> dict[str, Any]:
    """A copy of nested dicts with `value` at the dotted `path`; what is not touched is shared."""
    head, _, rest = path.partition(".")
    inner = config.get(head)
    changed = put(inner if isinstance(inner, dict) else {}, rest, value) if rest else value
    return {**config, head: changed}


def _groups(block: _Block, axes: Any, zipped: Any, place: str, mistakes: Mistakes) -> None:
    seen: set[str] = set()

    def read(names: Any, where: str) -> list[tuple[str, str, list[Value]]]:
        if not isinstance(names, dict):
            mistakes.add(where, "must map axes to lists of values, such as {width: [0.5, 1]}")
            return []
        group = []
        for name, values in names.items():
            here = f"{where}.{name}"
            found = axis_names.resolve(str(name))
            if isinstance(found, str):
                mistakes.add(here, found)
                continue
            column, path = found
            if path in seen:
                mistakes.add(here, f"the axis {column} is given twice in this block")
            seen.add(path)
            if not isinstance(values, list):
                mistakes.add(here, f"must be a list of values, not {values!r}: write [{values}]")
            elif not values:
                mistakes.add(here, "has no values: give at least one, or leave the axis out")
            else:
                group.append((column, path, values))
        return group

    if axes is not None:
        for axis in read(axes, f"{place}axes"):
            for i in axis_names.repeated(axis[2]):
                mistakes.add(f"{place}axes.{axis[0]}[{i}]", f"{axis[2][i]!r} is there twice")
            block.groups.append(_Group(f"{place}axes", [axis]))
    if zipped is None:
        return
    if not isinstance(zipped, list):
        sentence = "must be a list of groups, such as [{epochs: [1, 2], lr: [..]}]"
        mistakes.add(f"{place}zip", sentence)
        return
    for number, names in enumerate(zipped):
        group = read(names, f"{place}zip[{number}]")
        lengths = {column: len(values) for column, _, values in group}
        if len(set(lengths.values())) > 1:
            told = ", ".join(f"{column} has {length}" for column, length in lengths.items())
            sentence = f"axes that move together differ in length: {told}"
            mistakes.add(f"{place}zip[{number}]", sentence)
            continue
        if group:
            for i in axis_names.repeated(
                list(zip(*(values for _, _, values in group), strict=True))
            ):
                mistakes.add(f"{place}zip[{number}]", f"the values at {i} are there twice")
            block.groups.append(_Group(f"{place}zip[{number}]", group))


def _excludes(said: Any, columns: Mapping[str, str], mistakes: Mistakes) -> list[Condition] | None:
    """The conditions; None where one is wrong, so that nobody knows which cells there are."""
    if said is None:
        return []
    if not isinstance(said, list):
        mistakes.add("exclude", "must be a list of conditions, such as ['width > 1']")
        return None
    found = []
    for number, text in enumerate(said):
        try:
            found.append(parse(text, set(columns)))
        except UserError as error:
            mistakes.add(f"exclude[{number}]", str(error))
    return found if len(found) == len(said) else None


def _first(block: _Block) -> tuple[dict[str, Any], dict[str, str]]:
    """The fixed rest with the first value of every axis, and where these values are written."""
    said, places = block.fixed, {}
    for group in block.groups:
        for column, path, values in group.axes:
            said = put(said, path, values[0])
            places[path] = f"{group.place}.{column}[0]"
    return said, places


def _validate(block: _Block, mistakes: Mistakes) -> None:
    """The fixed rest with the first value of every axis, then each other value by itself."""
    first, places = _first(block)
    found = Mistakes()
    of_validation(TrialConfig, first, found, places)
    # of values that do not fit together, the cells tell: they may be excluded
    combined = {path.partition(".")[0] for path in places if "." in path}
    for line in [line for line in found.found if any(found.at(top, line) for top in combined)]:
        del found.found[line]
    wrong = {place for place in places.values() if found.at(place)}
    block.sound &= all(any(found.at(place, line) for place in wrong) for line in found.found)
    mistakes.found.update(found.found)
    for group in block.groups:
        for column, path, values in group.axes:
            if f"{group.place}.{column}[0]" in wrong:
                group.bad.add(0)
            for i, value in enumerate(values[1:], start=1):
                found = Mistakes()
                here = {path: f"{group.place}.{column}[{i}]"}
                of_validation(TrialConfig, put(first, path, value), found, here, only=path)
                if found.at(here[path]):
                    group.bad.add(i)
                    mistakes.found.update(found.found)


def _check_sections(block: _Block, check: Any, mistakes: Mistakes) -> None:
    """Of a block without cells: what is wrong with its sections, and with each value by itself."""
    first, places = _first(block)
    mistakes.extend(check(_sections(first)), places)
    for group in block.groups:
        for column, path, values in group.axes:
            for i, value in enumerate(values[1:], start=1):
                found = [m for m in check(_sections(put(first, path, value))) if m[0] == path]
                mistakes.extend(found, {path: f"{group.place}.{column}[{i}]"})


def _sections(said: Mapping[str, Any]) -> dict[str, Any]:
    """The sections of a trial's config that are right."""
    found = {}
    for name in TrialConfig.model_fields:
        with contextlib.suppress(ValidationError):
            found[name] = _part(name, said.get(name))
    return found


def _part(top: str, said: Any) -> Any:
    model = TrialConfig.model_fields[top]
    if said is None:
        return model.get_default()
    annotation = model.annotation
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation.model_validate(said)
    return said


class _Builder:
    """Trial configs of one block, whose sub-models are validated once and shared."""

    def __init__(self, block: _Block):
        self.fixed = block.fixed
        self.known: dict[tuple[Any, ...], Any] = {}
        self.axes: dict[str, list[int]] = {}  # places in a point, by section
        for at, path in enumerate(block.columns().values()):
            self.axes.setdefault(path.partition(".")[0], []).append(at)
        others = [top for top in TrialConfig.model_fields if top not in self.axes]
        self.rest = {top: _part(top, self.fixed.get(top)) for top in others}

    def trial(self, point: tuple[tuple[str, Value, str], ...]) -> TrialConfig:
        parts = dict(self.rest)
        for top, places in self.axes.items():
            mine = [point[at] for at in places]
            key = (top, *((path, type(value), str(value)) for path, value, _ in mine))
            if key not in self.known:
                said = self.fixed
                for path, value, _ in mine:
                    said = put(said, path, value)
                self.known[key] = _part(top, said.get(top))
            parts[top] = self.known[key]
        return TrialConfig.model_construct(**parts)


def _expand(
    name: str,
    blocks: list[_Block],
    columns: Mapping[str, str],
    excludes: list[Condition],
    mistakes: Mistakes,
    checks: tuple[Any, Any],
) -> Grid:
    trials: dict[str, Trial] = {}
    rules: list[tuple[str, int]] = []
    removed = dict.fromkeys((condition.text for condition in excludes), 0)
    check, check_cell = checks
    for block in blocks:
        checked: set[tuple[int, ...]] = set()  # ids of parts, which the builder keeps alive
        builder = _Builder(block)
        made = repeated = 0
        for point in block.points():
            made += 1
            try:
                config = builder.trial(point)
            except ValidationError as error:
                cell = ", ".join(f"{axis_names.LONG.get(p, p)}={v}" for p, v, _ in point)
                reason = error.errors()[0]["msg"].removeprefix("Value error, ")
                mistakes.add(block.place + "axes", f"the cell {cell}: {reason} (or exclude it)")
                continue
            cell_values = {column: _dig(config, path) for column, path in columns.items()}
            hit = next((c for c in excludes if c.holds(cell_values)), None)
            if hit is not None:
                removed[hit.text] += 1
                continue
            key = tuple(map(id, (config.dataset, config.model, config.augment, config.recipe)))
            if check is not None and key not in checked:
                checked.add(key)
                mistakes.extend(check(dict(config)), {path: place for path, _, place in point})
            if check_cell is not None:
                shuffled = config.compress.magnitude_schedule == "shuffled"
                parts = tuple(id(part) for name, part in config if shuffled or name != "seed")
                if parts not in checked:
                    checked.add(parts)
                    mistakes.extend(check_cell(config), {path: place for path, _, place in point})
            trial = trial_id(config)
            repeated += trial in trials
            trials.setdefault(trial, Trial(trial, cell_values, config))
        label = f"{block.place}axes and zip" if block.place else "axes and zip"
        rules.append((label, made))
        if repeated:
            rules.append((f"{label}: cells that are there already", -repeated))
    rules += [(f"exclude {text}", -count) for text, count in removed.items()]
    if not trials and not mistakes.found:
        mistakes.add("exclude", "removes every cell of the grid")
    return Grid(name, tuple(columns), tuple(trials.values()), tuple(rules))


def _dig(config: BaseModel, path: str) -> Value:
    value: Any = config
    for part in path.split("."):
        value = getattr(value, part, None)  # an option that only other blocks of the grid give
    return value
