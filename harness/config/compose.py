"""Composes the YAML files and the overrides of a command line into plain values.

Only the compose side of Hydra is used: `grids/` is its root, and `slurm/` is on its search path.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.config.grid_file import COMMANDS, GROUPS, choices, find_grid, refuse_key
from harness.errors import UserError
from harness.paths import GRIDS, PROFILES
from harness.sweep.mistakes import Mistakes

_CALLS = re.compile(r"\$\{[^}]*(:|\$\{)")  # a resolver, or one whose name another key gives


def compose(groups: Mapping[str, str], overrides: list[str], mistakes: Mistakes) -> dict[str, Any]:
    """Return the composed config as plain dicts and lists.

    `groups`: the grid, the choices of groups and the store; `overrides`: the dotted keys of the
    command line. What is wrong in a user's grid file is collected and left out.

    Raises:
        UserError: nothing can be composed; with all mistakes up to then.
    """
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    subject = f"the grid {Path(groups['grid']).stem} has"
    with tempfile.TemporaryDirectory(prefix="grid-") as scratch:
        try:
            grid, content = find_grid(groups["grid"], Path(scratch), mistakes)
        except UserError as error:
            if mistakes:  # of the command line: show them together
                mistakes.add("grid", str(error))
                mistakes.raise_any("the command line has")
            raise
        chosen = [f"{key}={groups[key]}" for key in groups if key in GROUPS]
        # `++` adds or replaces a key; unknown keys are found later, by the models
        changes = [text if text[0] in "+~" else f"++{text}" for text in overrides]
        changes = [text for text in changes if _is_override(text, mistakes)]
        try:
            composed = _compose([f"grid@_global_={grid}", *chosen, *changes], scratch)
            if _calls_resolvers(composed, mistakes):
                mistakes.raise_any(subject)
            config = _resolve(composed)
            if content is not None:
                _refuse_changed_commands(config, content, chosen, changes, scratch, mistakes)
        except (HydraException, OmegaConfBaseException, YAMLError, RecursionError) as error:
            sentence = f"cannot be composed: {_describe(error, scratch)}"
            mistakes.add(f"grid={groups['grid']}", sentence)
            mistakes.raise_any(subject)
            raise
    return {**config, "store": groups["store"]} if "store" in groups else config


def _compose(overrides: list[str], scratch: str) -> Any:
    """Return Hydra's composed config, in which interpolations are not resolved yet."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    roots = ",".join(_quoted(f"file://{root}") for root in (PROFILES, scratch))
    search_path = f"hydra.searchpath=[{roots}]"
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(GRIDS), version_base="1.3", job_name="harness"):
        return hydra_compose("launch", overrides=[*overrides, search_path])


def _resolve(composed: Any) -> dict[str, Any]:
    """Return a composed config as plain values, with interpolations resolved."""
    from omegaconf import OmegaConf

    config = OmegaConf.to_container(composed, resolve=True)
    assert isinstance(config, dict)
    return {str(key): value for key, value in config.items()}


def _is_override(text: str, mistakes: Mistakes) -> bool:
    """Return whether a text follows Hydra's grammar of overrides."""
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
    """Return a string as Hydra's grammar of overrides writes it."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _refuse_changed_commands(
    config: Mapping[str, Any],
    content: Mapping[str, Any],
    chosen: list[str],
    changes: list[str],
    scratch: str,
    mistakes: Mistakes,
) -> None:
    """Refuse a user's grid file that changes what a job executes, or the store, in any way.

    The config is compared with one that is composed without the file. The file may choose a
    profile of `slurm/cluster/`; what the profile and the command line say is kept.
    """
    own = [text for text in changes if text.lstrip("+~").startswith(("cluster.", "store="))]
    profiles = [
        f"cluster={value}"
        for item in content.get("defaults") or []
        if isinstance(item, dict)
        for key, value in item.items()
        if key == "override /cluster" and value in choices("cluster")
    ]
    without_file = _resolve(_compose([*profiles[-1:], *chosen, *own], scratch))
    for key in COMMANDS:
        if _command(config, key) != _command(without_file, key):
            refuse_key(f"cluster.slurm.{key}", mistakes)
    if config.get("store") != without_file.get("store"):
        refuse_key("store", mistakes)


def _command(config: Mapping[str, Any], key: str) -> Any:
    """Return `cluster.slurm.<key>` of a config whose sections may have any type."""
    value: Any = config
    for part in ("cluster", "slurm", key):
        value = value.get(part) if isinstance(value, Mapping) else value
    return value


def _calls_resolvers(composed: Any, mistakes: Mistakes) -> bool:
    """Collect interpolations that call something (environment, files), and return if there are any.

    Interpolations may point at other keys only.
    """
    from omegaconf import OmegaConf

    found = Mistakes()

    def visit(value: Any, place: str) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                visit(inner, f"{place}.{key}" if place else str(key))
        elif isinstance(value, list):
            for number, inner in enumerate(value):
                visit(inner, f"{place}[{number}]")
        elif isinstance(value, str) and _CALLS.search(value):
            found.add(place, f"{value!r} calls a resolver; only ${{other.key}} is allowed here")

    visit(OmegaConf.to_container(composed, resolve=False), "")
    mistakes.update(found)
    return bool(found)


def _describe(error: Exception, scratch: str) -> str:
    """Return an error of Hydra or OmegaConf as a sentence, without our scratch folder's name."""
    if isinstance(error, RecursionError):
        return "its keys point at each other in a circle"
    return " ".join(str(error).split()).replace(scratch, "").replace("from_file_", "")[:600]
