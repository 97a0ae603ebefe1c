"""Hydra's part of a config: what a grid file may say, and everything composed into plain values.

Hydra's compose side only: `grids/` is its root, `slurm/` on its search path. A grid file from
elsewhere may come from anyone: it is read as plain YAML, and what a cluster executes and where is
written are not its word.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from harness.errors import UserError, closest, nearest
from harness.files import user_path
from harness.paths import GRIDS, PROFILES
from harness.plain_yaml import plain
from harness.schema import TrialConfig
from harness.store.store import SWEEP_NAME
from harness.sweep.mistakes import Mistakes

GROUPS = ("dataset", "model", "recipe", "cluster")
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
COMMANDS = ("setup", "python", "extra")
"""Keys of `cluster.slurm` that end up in a shell or in sbatch's options."""
_WORD = re.compile(r"[\w.-]+")
_CALLS = re.compile(r"\$\{[^}]*(:|\$\{)")  # a resolver, or one whose name another key gives
_OVERRIDE = re.compile(r"override\s+/(\w+)")
_UNUSED = (
    "env",
    "help",
    "hydra_help",
    "hydra_logging",
    "job_logging",
    "launcher",
    "output",
    "sweeper",
)
"""Hydra's own settings, which only its command line reads: a quarter of the time to compose."""
_LONGEST, _DEEPEST = 1 << 20, 16  # characters and nesting of a grid file


def grid_files() -> dict[str, str]:
    """Shipped grids by name, with the first comment line of each."""
    found = {}
    for path in sorted((GRIDS / "grid").glob("*.yaml")):
        first = path.read_text().lstrip().splitlines()[0]
        found[path.stem] = first.lstrip("# ").strip() if first.startswith("#") else ""
    return found


def choices(group: str) -> list[str]:
    """What a group may be set to: the files in its folder."""
    folder = (PROFILES if group == "cluster" else GRIDS) / group
    return sorted(path.stem for path in folder.glob("*.yaml") if _WORD.fullmatch(path.stem))


def compose(words: Mapping[str, str], overrides: list[str], mistakes: Mistakes) -> dict[str, Any]:
    """The composed config as plain dicts and lists.

    `words`: the grid, groups by name and the store; `overrides`: the command line's dotted keys.
    What is wrong in the grid's file is collected, and left out of what is composed.

    Raises:
        UserError: what keeps Hydra from composing anything, after all that was found before it.
    """
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    subject = f"the grid {Path(words['grid']).stem} has"
    with tempfile.TemporaryDirectory(prefix="grid-") as scratch:
        try:
            grid, said = _grid_name(words["grid"], Path(scratch), mistakes)
        except UserError as error:
            if mistakes:  # on the command line, which the user types anew anyway
                mistakes.add("grid", str(error))
                mistakes.raise_any("the command line has")
            raise
        groups = [f"{key}={words[key]}" for key in words if key in GROUPS]
        # `++`: add or replace; a key that no model knows is found, with its nearest, later
        changes = [arg if arg[0] in "+~" else f"++{arg}" for arg in overrides]
        changes = [arg for arg in changes if _is_override(arg, mistakes)]
        try:
            composed = _composed([f"grid@_global_={grid}", *groups, *changes], scratch)
            if _calls_resolvers(composed, mistakes):
                mistakes.raise_any(subject)
            config = _resolved(composed)
            if said is not None:
                _refuse_changed_commands(config, said, groups, changes, scratch, mistakes)
        except (HydraException, OmegaConfBaseException, YAMLError, RecursionError) as error:
            mistakes.add(f"grid={words['grid']}", f"cannot be composed: {_told(error, scratch)}")
            mistakes.raise_any(subject)
            raise
    return {**config, "store": words["store"]} if "store" in words else config


def _composed(overrides: list[str], scratch: str) -> Any:
    """OmegaConf's container of the config, interpolations as they were written."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    roots = ",".join(_quoted(f"file://{root}") for root in (PROFILES, scratch))
    own = [*(f"~hydra/{name}" for name in _UNUSED), f"hydra.searchpath=[{roots}]"]
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(GRIDS), version_base="1.3", job_name="harness"):
        return hydra_compose("launch", overrides=[*overrides, *own])


def _resolved(composed: Any) -> dict[str, Any]:
    from omegaconf import OmegaConf

    said = OmegaConf.to_container(composed, resolve=True)
    assert isinstance(said, dict)
    return {str(key): value for key, value in said.items()}


def _is_override(text: str, mistakes: Mistakes) -> bool:
    """Whether it follows Hydra's grammar."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        OverridesParser.create().parse_override(text)
    except HydraException as error:
        reason = str(error).splitlines()[0]
        mistakes.add(text.lstrip("+"), f"cannot be read: {reason} (strings: key='a, b')")
        return False
    return True


def _quoted(text: str) -> str:
    """A string in Hydra's override grammar."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _grid_name(
    word: str, scratch: Path, mistakes: Mistakes
) -> tuple[str, Mapping[str, Any] | None]:
    """The name under which Hydra finds the grid; what a file says, where it is from elsewhere.

    Such a file is copied to `scratch`, without what is wrong in it.
    """
    from omegaconf import OmegaConf

    if not word.endswith((".yaml", ".yml")) and "/" not in word:
        if word not in grid_files():
            raise UserError(
                f"there is no grid '{word}'{nearest(word, grid_files())}; "
                "a file of your own is named by its path, grid=path/to/file.yaml"
            )
        return word, None
    path = user_path(word, "grid")
    if not SWEEP_NAME.fullmatch(path.stem):
        raise UserError(
            f"the grid file {path.name} names its sweep, and '{path.stem}' cannot be one: use "
            "letters, digits, '.', '_' and '-', beginning with a letter or digit"
        )
    try:
        text = path.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise UserError(f"the grid file {path} is no text in UTF-8: save it as such") from error
    except FileNotFoundError as error:
        raise UserError(
            f"there is no grid file {word}: check the path (from {Path.cwd()})"
        ) from error
    except OSError as error:
        raise UserError(f"the grid file {path} cannot be read: {error.strerror}") from error
    said = plain(text, f"the grid file {path}", _LONGEST, _DEEPEST)
    said = {} if said is None else said
    if not isinstance(said, dict):
        raise UserError(f"the grid file {path} is no mapping of keys such as axes and recipe")
    kept: Any = OmegaConf.create(text or "{}")
    for key, value in _allowed(said, path, mistakes).items():
        if value is None:
            del kept[key]
        else:
            kept[key] = value
    (scratch / "grid").mkdir()
    OmegaConf.save(kept, scratch / "grid" / f"from_file_{path.stem}.yaml")
    return f"from_file_{path.stem}", said


def _allowed(said: Mapping[Any, Any], path: Path, mistakes: Mistakes) -> dict[str, Any]:
    """Top-level keys of a grid file that are wrong as a whole; None, or what to read instead."""
    changed: dict[str, Any] = {}
    for key in SECTIONS:
        if said.get(key) is not None and not isinstance(said[key], dict):
            mistakes.add(key, f"must map keys to values, not {said[key]!r}")
            changed[key] = None
    if "hydra" in said:
        mistakes.add("hydra", "a grid cannot configure Hydra: leave it out")
        changed["hydra"] = None
    if "defaults" in said:
        changed["defaults"] = _defaults(said["defaults"], mistakes)
    for key in said:
        if not isinstance(key, str):
            mistakes.add(str(key), "keys are words: leave it out")
            changed[key] = None
    cluster = said.get("cluster")
    slurm = cluster.get("slurm") if isinstance(cluster, dict) else None
    found = [f"cluster.slurm.{key}" for key in COMMANDS if isinstance(slurm, dict) and key in slurm]
    for key in [*found, *(["store"] if "store" in said else [])]:
        _refuse_word(key, mistakes)
    return changed


def _refuse_word(key: str, mistakes: Mistakes) -> None:
    mistakes.add(
        key,
        "a grid may come from anyone and cannot set this: say it on the command line or in a "
        "profile of slurm/cluster/",
    )


def _defaults(said: Any, mistakes: Mistakes) -> list[Any]:
    """A grid file's choices of groups; wrong ones as they were probably meant, or left out."""
    if not isinstance(said, list):
        mistakes.add("defaults", "must be a list such as [override /dataset: digits]")
        return []
    kept: list[Any] = []
    for number, item in enumerate(said):
        place = f"defaults[{number}]"
        if item == "_self_" or (isinstance(item, str) and item in grid_files()):
            kept.append(item)
            continue
        key, value = next(iter(item.items())) if isinstance(item, dict) and item else (item, None)
        match = _OVERRIDE.fullmatch(str(key))
        if match is None or not isinstance(item, dict) or len(item) > 1:
            mistakes.add(place, f"{item!r} is no choice: write it as `override /dataset: digits`")
            continue
        group = match[1]
        if group not in GROUPS:
            mistakes.add(place, f"there is no group '{group}'{nearest(group, GROUPS)}")
            continue
        if value not in choices(group):
            known = choices(group)
            mistakes.add(place, f"there is no {group} '{value}'{nearest(str(value), known)}")
            value = closest(str(value), known)
        if value is not None:
            kept.append({f"override /{group}": value})
    return kept


def _refuse_changed_commands(
    config: Mapping[str, Any],
    said: Mapping[str, Any],
    groups: list[str],
    changes: list[str],
    scratch: str,
    mistakes: Mistakes,
) -> None:
    """Compare with the config without the grid: whatever way a grid found, commands are the same.

    The grid may choose a profile; what the profile and the command line say is kept.
    """
    own = [item for item in changes if item.lstrip("+~").startswith(("cluster.", "store="))]
    chosen = [
        f"cluster={value}"
        for item in said.get("defaults") or []
        if isinstance(item, dict)
        for key, value in item.items()
        if key == "override /cluster" and value in choices("cluster")
    ]
    alone = _resolved(_composed([*chosen[-1:], *groups, *own], scratch))
    for key in COMMANDS:
        found, expected = (
            part.get(key) if isinstance(part, dict) else part
            for part in (_slurm(config), _slurm(alone))
        )
        if found != expected:
            _refuse_word(f"cluster.slurm.{key}", mistakes)
    if config.get("store") != alone.get("store"):
        _refuse_word("store", mistakes)


def _slurm(config: Mapping[str, Any]) -> Any:
    cluster = config.get("cluster")
    return cluster.get("slurm") if isinstance(cluster, dict) else cluster


def _calls_resolvers(composed: Any, mistakes: Mistakes) -> bool:
    """Interpolations may point at other keys, and not call anything (environment, files)."""
    from omegaconf import OmegaConf

    found = Mistakes()

    def look(value: Any, place: str) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                look(inner, f"{place}.{key}" if place else str(key))
        elif isinstance(value, list):
            for number, inner in enumerate(value):
                look(inner, f"{place}[{number}]")
        elif isinstance(value, str) and _CALLS.search(value):
            found.add(place, f"{value!r} calls a resolver; only ${{other.key}} is allowed here")

    look(OmegaConf.to_container(composed, resolve=False), "")
    mistakes.update(found)
    return bool(found)


def _told(error: Exception, scratch: str) -> str:
    """A Hydra or OmegaConf error as a sentence, without its traceback or our scratch folder."""
    if isinstance(error, RecursionError):
        return "its keys point at each other in a circle"
    return " ".join(str(error).split()).replace(scratch, "").replace("from_file_", "")[:600]
