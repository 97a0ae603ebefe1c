"""From a command line to frozen models. Every mistake is named.

    load(["grid=quickstart", "recipe.epochs=3", "cluster.workers=2", "dry_run=true"], OPTIONS)

Hydra composes the YAML files and overrides (`compose.py`), pydantic validates the result
(`harness.schema`), `checks.py` checks what fits together, and `harness.sweep.grid` expands the
grid. A verb declares its own options (`dry_run`, `where`), which are not part of any config.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from harness.arguments import Option, read_arguments, top_level, unquoted
from harness.cluster_schema import ClusterConfig, ResourceRule
from harness.config.checks import check_launch, check_sections, check_trial
from harness.config.compose import compose
from harness.config.grid_file import (
    GROUPS,
    choices,
    grid_files,
    grid_folder,
    is_group_path,
    unknown_choice,
)
from harness.config.launch import Launch
from harness.config.settle import read_settle
from harness.errors import UserError, nearest
from harness.files import user_path
from harness.run_schema import RunConfig
from harness.schema import TrialConfig
from harness.sweep.axes import SHORT
from harness.sweep.blocks import LANGUAGE
from harness.sweep.grid import OPERATIONAL, read_grid
from harness.sweep.mistakes import Mistakes, validate
from harness.sweep.references import resolve
from harness.sweep.targets import read_evaluate

KEYS = (*TrialConfig.model_fields, *LANGUAGE, "settle", "evaluate", *OPERATIONAL)


def load(
    args: list[str], options: Mapping[str, Option] | None = None, trains: bool = False
) -> Launch:
    """Return the launch that a command line describes. Raises UserError with all mistakes.

    With `trains`, for commands that train, what jobs would refuse in this command line is a
    mistake, too: see `checks.py`.
    """
    mistakes = Mistakes()
    groups, overrides, values = _split(args, options or {}, mistakes)
    if "grid" not in groups:
        shipped = nearest("", grid_files())
        mistakes.add("grid", f"which grid? Say grid=NAME{shipped} or grid=path/to/file.yaml")
        mistakes.raise_any("the command line has")

    composed = compose(groups, overrides, mistakes)
    config = {**composed.config, **_operational(composed.config, mistakes)}
    for key in config:
        if key not in KEYS:
            mistakes.add_unknown_key(key, key, KEYS)
    run = validate(RunConfig, config.get("run") or {}, mistakes, prefix="run.")
    cluster = validate(ClusterConfig, config.get("cluster") or {}, mistakes, prefix="cluster.")
    store = _path(config.get("store"), "store", mistakes)
    if run is not None and run.data_root is not None:  # jobs start in other folders
        root = _path(run.data_root, "run.data_root", mistakes).absolute()
        run = run.model_copy(update={"data_root": str(root)})

    name = Path(groups["grid"]).stem
    grid = read_grid(
        name,
        composed.config,
        mistakes,
        check_sections,
        check_trial,
        chosen=composed.chosen,
        unused_rules=composed.changes_axes,
        folder=grid_folder(groups["grid"]),
    )

    if cluster is not None:
        cluster = _without_words(cluster, [key.path for key in composed.chosen if key.text])
    evaluate = read_evaluate(composed.config.get("evaluate"), mistakes)
    settle = read_settle(composed.config, grid, evaluate, mistakes)
    launch = None
    if run is not None and cluster is not None:
        words = tuple(arg for arg in args if arg.partition("=")[0] not in (options or {}))
        launch = Launch(grid, run, cluster, store, values, config, settle, evaluate, words)
        mistakes.extend(check_launch(launch, trains), {})
    mistakes.raise_any(f"the grid {name} has")
    assert launch is not None
    return launch


def _without_words(cluster: ClusterConfig, words: Collection[str]) -> ClusterConfig:
    """Return a profile whose resource rules do not set what `words`, keys of a command line, set.

    Rules that are themselves on the command line stay as they are.
    """
    if any(word.startswith("cluster.resources") for word in words):
        return cluster
    names = {word.rpartition(".")[2] for word in words if word.startswith(("run.", "cluster."))}
    own = dict.fromkeys(names & ResourceRule.model_fields.keys())
    rules = tuple(rule.model_copy(update=own) for rule in cluster.resources)
    return cluster.model_copy(update={"resources": rules})


def _operational(config: Mapping[str, Any], mistakes: Mistakes) -> dict[str, Any]:
    """Return the operational keys of a config, with the values of the keys they refer to."""
    try:
        return resolve(config, OPERATIONAL)
    except UserError as error:
        mistakes.add_sentence(str(error))
        return {}


def _path(value: Any, key: str, mistakes: Mistakes) -> Path:
    """Return the folder that a key names as a path of this machine; collect what is wrong."""
    if not isinstance(value, str) or not value:
        mistakes.add(key, f"must be the path of a folder, not {value!r}")
        return Path()
    try:
        return user_path(value, key)
    except UserError as error:
        mistakes.add(key, str(error))
        return Path()


def _split(
    args: list[str], options: Mapping[str, Option], mistakes: Mistakes
) -> tuple[dict[str, str], list[str], dict[str, Any]]:
    """Return choices of groups, dotted overrides, and values of the verb's options."""
    groups: dict[str, str] = {}
    overrides: list[str] = []
    arguments = read_arguments(args, options)
    for sentence in arguments.mistakes:
        mistakes.add_sentence(sentence)
    for key, value in arguments.others:
        plain = unquoted(value)  # paths need no quotes, but may have them
        if key in GROUPS and plain not in choices(key) and not is_group_path(key, plain):
            mistakes.add(key, unknown_choice(key, plain))
        elif key in ("grid", "store", *GROUPS):
            groups[key] = plain
        elif key in SHORT and key not in KEYS:
            mistakes.add(
                key, f"'{key}' is an axis: write axes.{key}=[{value}] or {SHORT[key]}={value}"
            )
        elif (top := top_level(key)) not in KEYS:
            valid = [*options, "grid", *GROUPS, *KEYS]
            mistakes.add(key, f"there is no option or config key '{top}'{nearest(top, valid)}")
        else:
            overrides.append(f"{key}={value}")
    return groups, overrides, arguments.options
