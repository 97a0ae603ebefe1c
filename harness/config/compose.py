"""Composes the YAML files and the overrides of a command line into plain values.

Only the compose side of Hydra is used: `grids/` is its root, and `slurm/` is on its search path.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.config.grid_file import (
    DECIDED_BY_GROUP,
    FROM_FILE,
    GROUPS,
    SECTIONS,
    USERS_KEYS,
    beside_grid,
    choices,
    defaults,
    hydra_grid,
    is_group_path,
    is_path,
    read_grid_file,
    read_group,
    refuse_key,
    value_at,
    write_yaml,
)
from harness.errors import UserError
from harness.paths import GRIDS, PROFILES
from harness.sweep.axes import axis_path
from harness.sweep.blocks import LANGUAGE
from harness.sweep.grid import OPERATIONAL, Chosen
from harness.sweep.mistakes import Mistakes
from harness.sweep.references import resolve


@dataclass(frozen=True)
class Composed:
    """A composed config as plain dicts and lists, in which references are not replaced yet.

    `chosen` are the keys that the grid file or the command line fix for all trials, and
    `changes_axes` says whether the command line changes which trials the grid has.
    """

    config: dict[str, Any]
    chosen: list[Chosen]
    changes_axes: bool


def compose(groups: Mapping[str, str], overrides: list[str], mistakes: Mistakes) -> Composed:
    """Return the composed config of a command line.

    `groups`: the grid, the choices of groups and the store; `overrides`: the dotted keys of the
    command line. What is wrong in a user's grid file is collected and left out.

    Raises:
        UserError: nothing can be composed; with all mistakes up to then.
    """
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    with tempfile.TemporaryDirectory(prefix="grid-") as scratch:
        try:
            content = read_grid_file(groups["grid"])
        except UserError as error:
            if mistakes:  # of the command line: show them together
                mistakes.add("grid", str(error))
                mistakes.raise_any("the command line has")
            raise
        parsed = [change for text in overrides if (change := _parse(text, mistakes))]
        axes = [change for change in parsed if change.key_or_group.startswith("axes.")]
        changes = [change.input_line for change in parsed if change not in axes]
        try:
            grid = hydra_grid(groups["grid"], content, Path(scratch), mistakes)
            selected = _selected(groups, content, Path(scratch))
            config = _compose([f"grid@_global_={grid}", *selected, *changes], scratch)
            _change_axes(config, axes, mistakes)
            if is_path(groups["grid"]):
                _refuse_users_keys(config, content, selected, changes, scratch, mistakes)
        except (HydraException, OmegaConfBaseException, YAMLError, RecursionError) as error:
            place = getattr(error, "full_key", None) or f"grid={groups['grid']}"
            mistakes.add(place, f"cannot be composed: {_describe(error, scratch)}")
            mistakes.raise_any(f"the grid {Path(groups['grid']).stem} has")
            raise
    if "store" in groups:
        config["store"] = groups["store"]
    changes_axes = any(change.key_or_group.partition(".")[0] in LANGUAGE for change in parsed)
    fixed = _fixed_keys(content)
    if changes_axes:  # an axis of the command line may replace a fixed key, one of the file may not
        own_axes = _axis_paths(content)
        fixed = [key for key in fixed if key.path in own_axes]
    words = list(_fixed_words(parsed, mistakes))
    chosen = [*fixed, *words, *_fixed_groups(groups, content, words, mistakes)]
    return Composed(config, chosen, changes_axes)


def _fixed_keys(content: Mapping[str, Any]) -> list[Chosen]:
    """Return the keys of a trial that a grid file fixes."""
    fixed = {key: value for key, value in content.items() if key in SECTIONS or key == "seed"}
    return [Chosen(path, path) for path in _leaves(fixed)]


def _axis_paths(content: Mapping[str, Any]) -> set[str | None]:
    """Return the dotted paths of the axes of a grid file, those in `zip` included."""
    zipped = content.get("zip")  # of any type: read_blocks reports what is wrong with it
    groups = [content.get("axes"), *(zipped if isinstance(zipped, list) else [])]
    return {
        axis_path(str(name)) for group in groups if isinstance(group, Mapping) for name in group
    }


def _fixed_words(changes: Iterable[Any], mistakes: Mistakes) -> Iterator[Chosen]:
    """Yield the keys that the words of a command line fix; collect keys that two words fix."""
    words: dict[str, str] = {}
    for change in changes:
        word = change.input_line.lstrip("+")
        name = change.key_or_group
        if name.startswith("axes."):  # short and long names
            name = f"axes.{axis_path(name.removeprefix('axes.')) or name}"
        value = None if change.is_delete() else change.value()
        for path in [] if change.is_delete() else _leaves(value, name):
            if path in words:
                mistakes.add(word, f"sets the same key as {words[path]}: keep one of them")
            words[path] = word
            text = word.partition("=")[2]
            if isinstance(value, Mapping):
                text = json.dumps(value_at(value, path.removeprefix(f"{name}.")), default=str)
            yield Chosen(path, word, text)


def _fixed_groups(
    groups: Mapping[str, str],
    content: Mapping[str, Any],
    words: Iterable[Chosen],
    mistakes: Mistakes,
) -> Iterator[Chosen]:
    """Yield the keys that a group on the command line decides.

    Those that the grid file or another word fixes are collected as mistakes.
    """
    places = {path: place for path, place, _ in words}
    for group, key in DECIDED_BY_GROUP.items():
        if group not in groups:
            continue
        path, word = f"{group}.{key}", f"{group}={groups[group]}"
        value, fixed = read_group(group, groups[group]).get(key), value_at(content, path)
        if path in places:
            mistakes.add(word, f"sets the same key as {places[path]}: keep one of them")
        elif fixed is not None and fixed != value:
            sentence = f"the grid file sets {path} to {fixed}: leave that out, or write {path}="
            mistakes.add(word, sentence + str(value))
        elif value is not None:
            yield Chosen(path, word, str(value))


def _selected(groups: Mapping[str, str], content: Mapping[str, Any], scratch: Path) -> list[str]:
    """Return the choices of groups for Hydra. Raises UserError for a file that cannot be read.

    A user's own data set and profile of a cluster are copied to `scratch`.
    """
    chosen = defaults(content)
    if is_path(groups["grid"]):
        chosen = [
            (group, beside_grid(value, groups["grid"]) if is_group_path(group, value) else value)
            for group, value in chosen
        ]
    for group, value in [*chosen, *groups.items()]:
        if group in GROUPS and (is_group_path(group, value) or value in choices(group)):
            read_group(group, value)
    selected = {group: value for group, value in groups.items() if group in GROUPS}
    files = {**{group: value for group, value in chosen if group == "dataset"}, **selected}
    for group, value in files.items():
        if is_group_path(group, value):
            write_yaml(scratch / group / f"{FROM_FILE}.yaml", read_group(group, value))
            if group in selected:
                selected[group] = FROM_FILE
    return [f"{group}={value}" for group, value in selected.items()]


def _leaves(value: Any, path: str = "") -> list[str]:
    """Return the dotted paths of the values in nested dicts."""
    if not isinstance(value, Mapping):
        return [path]
    inner = [_leaves(item, f"{path}.{key}" if path else str(key)) for key, item in value.items()]
    return [leaf for leaves in inner for leaf in leaves]


def _change_axes(config: dict[str, Any], changes: Iterable[Any], mistakes: Mistakes) -> None:
    """Set the axes that a command line names, whether by their short or their long names.

    Hydra cannot address an axis such as `recipe.optimizer.momentum`, whose name has dots.
    """
    for change in changes:
        name = change.key_or_group.removeprefix("axes.")
        axes = config.get("axes") or {}
        if change.is_delete():
            mistakes.add(change.input_line, "an axis cannot be removed: give it a single value")
        elif isinstance(axes, dict):  # read_blocks reports other types
            path = axis_path(name)
            renamed = {
                name if path is not None and axis_path(str(key)) == path else key: values
                for key, values in axes.items()
            }
            config["axes"] = {**renamed, name: change.value()}


def _compose(overrides: list[str], scratch: str) -> dict[str, Any]:
    """Return Hydra's composed config as plain values, in which references are not replaced yet."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import OmegaConf

    roots = ",".join(_quoted(f"file://{root}") for root in (PROFILES, scratch))
    search_path = f"hydra.searchpath=[{roots}]"
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(GRIDS), version_base="1.3", job_name="harness"):
        composed = hydra_compose("launch", overrides=[*overrides, search_path])
    config = OmegaConf.to_container(composed, resolve=False)
    assert isinstance(config, dict)
    return {str(key): value for key, value in config.items()}


def _parse(text: str, mistakes: Mistakes) -> Any:
    """Return Hydra's override of a word, or None if the word does not follow Hydra's grammar."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    word = text.lstrip("+")
    key, _, value = text.partition("=")
    if value.startswith("~"):  # a folder below a home, which the grammar does not know
        text = f"{key}={_quoted(value)}"
    try:
        # `++` adds or replaces a key; unknown keys are found later, by the models
        change = OverridesParser.create().parse_override(text if text[0] in "+~" else f"++{text}")
    except HydraException as error:
        reason = str(error).splitlines()[0]
        mistakes.add(word, f"cannot be read: {reason} (strings: key='a, b')")
        return None
    if not change.is_sweep_override():
        return change
    axis = axis_path(change.key_or_group.removeprefix("axes."))
    remedy = f"list them, as axes.{axis}=[1,2]" if axis else "give one"
    mistakes.add(word, f"has several values: {remedy} (a text with commas: key='a, b')")
    return None


def _quoted(text: str) -> str:
    """Return a string as Hydra's grammar of overrides writes it."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _refuse_users_keys(
    config: Mapping[str, Any],
    content: Mapping[str, Any],
    selected: list[str],
    changes: list[str],
    scratch: str,
    mistakes: Mistakes,
) -> None:
    """Refuse a user's grid file that changes a key of `USERS_KEYS`, in any way.

    The config is compared with one that is composed without the file. The file may choose a
    profile of `slurm/cluster/`; what the profile and the command line say is kept.
    """
    own = [text for text in changes if text.lstrip("+~").startswith(OPERATIONAL)]
    profiles = [
        f"{group}={value}"
        for group, value in defaults(content)
        if group == "cluster" and value in choices(group)
    ]
    without_file = _compose([*profiles[-1:], *selected, *own], scratch)
    for key in USERS_KEYS:
        values = []
        for candidate in (config, without_file):
            with contextlib.suppress(UserError):  # a reference to nothing is reported elsewhere
                values.append(value_at(resolve(candidate, [key.partition(".")[0]]), key))
        if values[1:] != values[:1]:
            refuse_key(key, mistakes)


def _describe(error: Exception, scratch: str) -> str:
    """Return an error of Hydra or OmegaConf as a sentence, without our scratch folder's name."""
    from omegaconf.errors import GrammarParseError

    if isinstance(error, RecursionError):
        return "its keys point at each other in a circle"
    if isinstance(error, GrammarParseError):
        return "a reference to a key is written as ${seed}"
    return " ".join(str(error).split()).replace(scratch, "").replace("from_file_", "")[:600]
