"""Reads a user's grid file, which may come from anyone.

The file is read as plain YAML. It cannot configure Hydra, choose the store, or say what a job
executes. What is wrong in it is collected, and left out of what Hydra composes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from harness.errors import UserError, closest, nearest
from harness.files import user_path
from harness.paths import GRIDS, PROFILES
from harness.plain_yaml import plain, read_text
from harness.schema import TrialConfig
from harness.store.store import SWEEP_NAME
from harness.sweep.mistakes import Mistakes

GROUPS = ("dataset", "model", "recipe", "cluster")
"""Folders of YAML files that a grid chooses from."""
DECIDED_BY_GROUP = {"dataset": "name", "model": "family", "cluster": "executor"}
"""The key that says what the file of a group is for; a grid file that sets it replaces the group.
"""
SECTIONS = (
    *(
        name
        for name, field in TrialConfig.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
    ),
    "run",
    "cluster",
)
"""Top-level keys that hold further keys."""
USERS_KEYS = (
    *(f"cluster.slurm.{key}" for key in ("setup", "python", "extra")),
    "store",
    "run.data_root",
)
"""Keys that a grid file cannot set: what a job executes, and where files are written."""
FROM_FILE = "from_file"  # what Hydra calls the file of a user in a group
_CHOICE = re.compile(r"[\w.-]+")
_OVERRIDE = re.compile(r"override\s+/(\w+)")


def grid_files() -> dict[str, str]:
    """Return the shipped grids by name, each with the first comment line of its file."""
    titles = {}
    for path in sorted((GRIDS / "grid").glob("*.yaml")):
        first = path.read_text(errors="replace").lstrip().partition("\n")[0]
        titles[path.stem] = first.lstrip("# ").strip() if first.startswith("#") else ""
    return titles


def choices(group: str) -> list[str]:
    """Return what a group may be set to: the names of the files in its folder."""
    folder = (PROFILES if group == "cluster" else GRIDS) / group
    return sorted(path.stem for path in folder.glob("*.yaml") if _CHOICE.fullmatch(path.stem))


def is_path(name: str) -> bool:
    """Return whether `grid=name` is the path of a user's grid, not the name of a shipped one."""
    return name.endswith((".yaml", ".yml")) or "/" in name


def grid_folder(name: str) -> Path:
    """Return the folder in which the tables of a grid are looked up first."""
    return user_path(name, "grid").parent if is_path(name) else Path()


def is_group_path(group: str, value: str) -> bool:
    """Return whether the value of a group is the path of a user's own data set or cluster."""
    return group in ("cluster", "dataset") and value.endswith((".yaml", ".yml"))


def beside_grid(value: str, grid: str) -> str:
    """Return the path of a data set that a grid file names: beside that file, or from here."""
    beside = grid_folder(grid) / user_path(value, "dataset")
    return str(beside) if beside.is_file() else value


def read_group(group: str, value: str) -> dict[Any, Any]:
    """Return the plain content of the file that a group is set to. Raises UserError."""
    path = (PROFILES if group == "cluster" else GRIDS) / group / f"{value}.yaml"
    if is_group_path(group, value):
        path = user_path(value, group)
    what = f"{group} file"
    content = plain(read_text(path, what), f"the {what} {path}")
    if not isinstance(content, dict) or "defaults" in content:
        raise UserError(f"the {what} {path} is not a mapping of keys of `{group}`")
    return content


def read_grid_file(name: str) -> dict[Any, Any]:
    """Return the plain content of a grid file: a shipped one by its name, or by a path.

    Raises UserError for a file that cannot be read.
    """
    path = user_path(name, "grid") if is_path(name) else GRIDS / "grid" / f"{name}.yaml"
    if not is_path(name) and name not in grid_files():
        raise UserError(
            f"there is no grid '{name}'{nearest(name, grid_files())}; "
            "a file of your own is named by its path, grid=path/to/file.yaml"
        )
    if not SWEEP_NAME.fullmatch(path.stem):
        raise UserError(
            f"the grid file {path.name} names its sweep, and '{path.stem}' cannot be such a name: "
            "use letters, digits, '.', '_' and '-', beginning with a letter or digit"
        )
    content = plain(read_text(path, "grid file"), f"the grid file {path}")
    if not isinstance(content, dict) or not content:
        raise UserError(f"the grid file {path} is not a mapping of keys such as axes and recipe")
    return content


def hydra_grid(name: str, content: dict[Any, Any], scratch: Path, mistakes: Mistakes) -> str:
    """Return the name under which Hydra finds a grid.

    A user's file is copied to `scratch`, without what is wrong in it.
    """
    if not is_path(name):
        return name
    hydra_name = f"from_file_{Path(name).stem}"
    corrections = _corrections(content, mistakes)
    dropped = {key for key, value in corrections.items() if value is None}
    copy = {key: value for key, value in {**content, **corrections}.items() if key not in dropped}
    write_yaml(scratch / "grid" / f"{hydra_name}.yaml", copy)
    return hydra_name


def write_yaml(path: Path, content: Mapping[Any, Any]) -> None:
    """Write plain values as a YAML file for Hydra."""
    from omegaconf import OmegaConf

    path.parent.mkdir()
    OmegaConf.save(OmegaConf.create(dict(content)), path)


def defaults(content: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the groups that a grid file sets in `defaults`, with their values."""
    items = content.get("defaults")
    pairs = []
    for item in items if isinstance(items, list) else []:
        for key, value in item.items() if isinstance(item, dict) else []:
            if match := _OVERRIDE.fullmatch(str(key)):
                pairs.append((match[1], str(value)))
    return pairs


def _corrections(content: Mapping[Any, Any], mistakes: Mistakes) -> dict[Any, Any]:
    """Collect the mistakes of top-level keys, and return what to read instead of each (or None)."""
    corrections: dict[Any, Any] = {}
    for key in SECTIONS:
        if key in content and not isinstance(content[key], dict):
            mistakes.add(
                key, f"must map keys to values, not {content[key]!r}: leave it out, or give it keys"
            )
            corrections[key] = None
    if "hydra" in content:
        mistakes.add("hydra", "a grid cannot configure Hydra: leave it out")
        corrections["hydra"] = None
    if "defaults" in content:
        corrections["defaults"] = _read_defaults(content["defaults"], mistakes)
    for key in content:
        if not isinstance(key, str):
            mistakes.add(str(key), "keys must be words: leave it out")
            corrections[key] = None
    for key in USERS_KEYS:
        if value_at(content, key) is not None:
            refuse_key(key, mistakes)
    return corrections


def value_at(config: Any, key: str) -> Any:
    """Return the value of a dotted key in nested values, or None where there is none."""
    for part in key.split("."):
        config = config.get(part) if isinstance(config, Mapping) else None
    return config


def refuse_key(key: str, mistakes: Mistakes) -> None:
    """Add the mistake of a grid that sets a key which only the user may set."""
    profile = " or in a profile of slurm/cluster/" if key.startswith("cluster.") else ""
    sentence = "a grid may come from anyone and cannot set this: set it on the command line"
    mistakes.add(key, sentence + profile)


def _read_defaults(config: Any, mistakes: Mistakes) -> list[Any]:
    """Return a grid file's choices of groups. A wrong one becomes the nearest, or is left out."""
    if not isinstance(config, list):
        mistakes.add("defaults", "must be a list such as [override /dataset: digits]")
        return []
    kept: list[Any] = []
    for number, item in enumerate(config):
        place = f"defaults[{number}]"
        if item == "_self_" or (isinstance(item, str) and item in grid_files()):
            kept.append(item)
            continue
        key, value = next(iter(item.items())) if isinstance(item, dict) and item else (item, None)
        match = _OVERRIDE.fullmatch(str(key))
        if match is None or not isinstance(item, dict) or len(item) > 1:
            sentence = "is not a choice of a group: write it as `override /dataset: digits`"
            mistakes.add(place, f"{item!r} {sentence}")
            continue
        group = match[1]
        if group not in GROUPS:
            mistakes.add(place, f"there is no group '{group}'{nearest(group, GROUPS)}")
            continue
        if group == "dataset" and is_group_path(group, str(value)):
            value = FROM_FILE
        elif value not in choices(group):
            mistakes.add(place, unknown_choice(group, str(value)))
            value = closest(str(value), choices(group))
        if value is not None:
            kept.append({f"override /{group}": value})
    return kept


def unknown_choice(group: str, value: str) -> str:
    """Return the mistake of a group set to a file that does not exist.

    A data set or a family that a plug-in registers needs no file.
    """
    from harness.data.catalog import CATALOG
    from harness.models.registry import find_family

    key = {"dataset": "dataset.name", "model": "model.family"}.get(group)
    if (group == "dataset" and value in CATALOG) or (group == "model" and find_family(value)):
        return (
            f"there is no file of {group} '{value}', but it is registered: set {key}={value}, and "
            f"the other keys of {group} as it needs them, instead of {group}={value}"
        )
    own = "; one of your own is named by its file, dataset=path/to/pets.yaml"
    end = own if group == "dataset" else ""
    return f"there is no {group} '{value}'{nearest(value, choices(group))}{end}"
