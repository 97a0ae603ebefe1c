"""From a command line to frozen models. Every mistake is named.

    load(["grid=quickstart", "recipe.epochs=3", "cluster.workers=2", "dry_run=true"], OPTIONS)

Hydra composes the YAML files and overrides (`compose.py`), pydantic validates the result
(`harness.schema`), `checks.py` checks what fits together, and `harness.sweep.grid` expands the
grid. A verb declares its own options (`dry_run`, `where`), which are not part of any config.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.arguments import Option, read_arguments, top_level, unquoted
from harness.cluster_schema import ClusterConfig
from harness.config.checks import check_run, check_sections, check_teachers, check_trial
from harness.config.compose import compose
from harness.config.grid_file import (
    GROUPS,
    choices,
    grid_files,
    grid_folder,
    is_profile_path,
    unknown_choice,
)
from harness.errors import UserError, nearest
from harness.files import user_path
from harness.schema import RunConfig, TrialConfig
from harness.sweep.axes import SHORT
from harness.sweep.blocks import LANGUAGE
from harness.sweep.grid import OPERATIONAL, Grid, read_grid
from harness.sweep.mistakes import Mistakes, validate
from harness.sweep.references import resolve

KEYS = (*TrialConfig.model_fields, *LANGUAGE, *OPERATIONAL)


@dataclass(frozen=True)
class Launch:
    """A parsed command line; `options` has the values of the options of the command itself."""

    grid: Grid
    run: RunConfig
    cluster: ClusterConfig
    store: Path
    options: Mapping[str, Any] = field(default_factory=dict)
    resolved: Mapping[str, Any] = field(default_factory=dict)  # the composed config, plain


def load(
    args: list[str], options: Mapping[str, Option] | None = None, trains: bool = False
) -> Launch:
    """Return the launch that a command line describes. Raises UserError with all mistakes.

    With `trains`, for verbs that train, teachers must exist and suit the data. Other verbs show a
    finished sweep also after its teacher's weights were deleted.
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
    store = _read_store(config.get("store"), mistakes)
    run = _expand_data_root(run, mistakes)

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

    mistakes.extend(check_teachers(grid, store, trains), {})
    if run is not None and cluster is not None:
        mistakes.extend(check_run(run, cluster, grid), {})
    mistakes.raise_any(f"the grid {name} has")
    assert run is not None
    assert cluster is not None
    return Launch(grid, run, cluster, store, values, config)


def _operational(config: Mapping[str, Any], mistakes: Mistakes) -> dict[str, Any]:
    """Return the operational keys of a config, with the values of the keys they refer to."""
    try:
        return resolve(config, OPERATIONAL)
    except UserError as error:
        mistakes.add_sentence(str(error))
        return {}


def _read_store(value: Any, mistakes: Mistakes) -> Path:
    """Return the store's folder as a path of this machine."""
    if not isinstance(value, str) or not value:
        mistakes.add("store", f"must be the path of a folder, not {value!r}")
        return Path()
    try:
        return user_path(value, "store")
    except UserError as error:
        mistakes.add("store", str(error))
        return Path()


def _expand_data_root(run: RunConfig | None, mistakes: Mistakes) -> RunConfig | None:
    """Return `run` with its data root as a path of this machine."""
    if run is None or run.data_root is None:
        return run
    try:
        root = user_path(run.data_root, "run.data_root")
    except UserError as error:
        mistakes.add("run.data_root", str(error))
        return run
    return run.model_copy(update={"data_root": str(root)})


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
        if key in GROUPS and plain not in choices(key) and not is_profile_path(key, plain):
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
