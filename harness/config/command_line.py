"""From a command line to frozen models: Hydra composes, pydantic checks, every mistake is named.

    load(["grid=quickstart", "recipe.epochs=3", "cluster.workers=2", "dry_run=true"], OPTIONS)

Hydra's compose side only: `grids/` is its root, `slurm/` on its search path. A verb declares
its own options (`dry_run`, `where`), which are not part of any config.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.arguments import Option, read_arguments
from harness.cluster_schema import ClusterConfig
from harness.config.compose import GROUPS, choices, compose, grid_files
from harness.errors import UserError, nearest
from harness.files import user_path
from harness.schema import DatasetConfig, RunConfig, TrialConfig
from harness.sweep import check as compression
from harness.sweep import teachers
from harness.sweep.grid import Grid, read_grid
from harness.sweep.jobs import RULE_NAMES
from harness.sweep.mistakes import Mistakes, validate
from harness.sweep.stage import steps
from harness.sweep.where import parse

LANGUAGE = ("axes", "zip", "also", "exclude")
OPERATIONAL = ("run", "cluster", "store")
KEYS = (*TrialConfig.model_fields, *LANGUAGE, *OPERATIONAL)


@dataclass(frozen=True)
class Launch:
    """What a command line asks for; `options` has the values of the verb's own options."""

    grid: Grid
    run: RunConfig
    cluster: ClusterConfig
    store: Path
    options: Mapping[str, Any] = field(default_factory=dict)
    resolved: Mapping[str, Any] = field(default_factory=dict)  # the composed config, plain


def load(
    args: list[str], options: Mapping[str, Option] | None = None, trains: bool = False
) -> Launch:
    """Compose, check and expand. Raises UserError naming every mistake.

    With `trains`, for verbs that train, teachers have to be there and to fit. Those that only look
    show a finished sweep also after its teacher's weights were deleted.
    """
    mistakes = Mistakes()
    words, overrides, values = _split(args, options or {}, mistakes)
    if "grid" not in words:
        shipped = nearest("", grid_files())
        mistakes.add("grid", f"which grid? Say grid=NAME{shipped} or grid=path/to/file.yaml")
        mistakes.raise_any("the command line has")
    said = compose(words, overrides, mistakes)
    for key in said:
        if key not in KEYS:
            mistakes.add_unknown_key(key, key, KEYS)
    run = validate(RunConfig, said.get("run") or {}, mistakes, prefix="run.")
    cluster = validate(ClusterConfig, said.get("cluster") or {}, mistakes, prefix="cluster.")
    store, run = _places(said.get("store"), run, mistakes)
    name = Path(words["grid"]).stem
    grid = read_grid(name, said, mistakes, check_sections, check_cell)
    asked = {trial.config.teacher for trial in grid.trials}
    if any(teacher.name for teacher in asked) and not any(teacher.acts for teacher in asked):
        sentence = "it does nothing: set teacher.labels, target with candidates, or cap"
        mistakes.add("teacher", sentence)
    for teacher, data in sorted(_teachers(grid) if trains else (), key=str):
        if problem := teachers.misfit(teacher, store, data):
            mistakes.add("teacher.name", problem)
    if run is not None and cluster is not None:
        mistakes.extend(_unfit(run, cluster, grid), {})
    mistakes.raise_any(f"the grid {name} has")
    assert run is not None
    assert cluster is not None
    return Launch(grid, run, cluster, store, values, said)


def _places(said: Any, run: RunConfig | None, mistakes: Mistakes) -> tuple[Path, RunConfig | None]:
    """The store, and `run` with its data root, as paths of this machine."""
    store = Path()
    if not isinstance(said, str) or not said:
        mistakes.add("store", f"must be the path of a folder, not {said!r}")
    else:
        try:
            store = user_path(said, "store")
        except UserError as error:
            mistakes.add("store", str(error))
    if run is None or run.data_root is None:
        return store, run
    try:
        root = str(user_path(run.data_root, "run.data_root"))
    except UserError as error:
        mistakes.add("run.data_root", str(error))
        return store, run
    return store, run.model_copy(update={"data_root": root})


def _unfit(run: RunConfig, cluster: ClusterConfig, grid: Grid) -> Iterator[tuple[str, str]]:
    """What does not fit together in how the trials are run."""
    for number, rule in enumerate(cluster.resources):
        try:
            parse(rule.where, RULE_NAMES)
        except UserError as error:
            yield f"cluster.resources[{number}].where", str(error)
    if run.zero_stage and run.engine != "deepspeed":
        sentence = f"{run.zero_stage} is for run.engine=deepspeed: say run.zero_stage=0"
        yield "run.zero_stage", sentence
    if any(rule.processes for rule in cluster.resources):
        return  # the loader tells of what each rule makes of it
    for size in sorted({trial.config.recipe.batch_size for trial in grid.trials}):
        if size % run.processes:
            yield (
                "recipe.batch_size",
                f"{size} cannot be shared equally by run.processes={run.processes}: make it a "
                f"multiple of {run.processes}",
            )


def _teachers(grid: Grid) -> set[tuple[str, DatasetConfig]]:
    """Each teacher's name, with the data sets that it is asked about."""
    configs = (trial.config for trial in grid.trials if trial.config.teacher.acts)
    return {(str(config.teacher.name), config.dataset) for config in configs}


def check_sections(sections: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Mistakes that the models cannot see: unknown data sets, families, policies; bad sizes.

    `sections` maps top-level keys of a trial to their models; those that are wrong are absent.
    """
    from harness.augment.policy import parse_policy, with_magnitude
    from harness.data.catalog import CATALOG, misfits
    from harness.models import registry

    dataset, model, augment, recipe = map(sections.get, ("dataset", "model", "augment", "recipe"))
    data = CATALOG.get(dataset.name) if dataset else None
    side = (dataset.resolution if dataset else None) or (data.resolution if data else None)
    found = []
    said = [("dataset", sentence) for sentence in misfits(dataset)] if dataset else []
    said += [("model", sentence) for sentence in registry.check(model, side)] if model else []
    for path, sentence in said:
        key, _, rest = sentence.partition(": ")
        known = key.startswith(f"{path}.")
        found.append((key, rest) if known else (path, sentence))
    sized = model is not None and registry.takes_one_size(model.family)
    if dataset and dataset.start_resolution is not None and model and sized:
        sentence = f"{model.family} learns a position for each patch of one size of images"
        found.append(("dataset.start_resolution", f"{sentence}; leave it out."))
    if augment:
        try:
            parse_policy(with_magnitude(augment.policy, augment.magnitude))
        except UserError as error:
            found.append(("augment.policy", str(error)))
    if recipe and recipe.optimizer.nesterov and not recipe.optimizer.momentum:
        found.append(("recipe.optimizer.nesterov", "needs a momentum above 0"))
    if augment and recipe and (augment.mixup or augment.cutmix) and recipe.batch_size % 2:
        sentence = f"{recipe.batch_size} is odd, and mixup and cutmix pair neighbours"
        found.append(("recipe.batch_size", f"{sentence}: make it even"))
    if dataset and data and recipe:
        images = dataset.train_size or data.train_size - dataset.validation_size
        if 0 < images < recipe.batch_size:
            sentence = f"{recipe.batch_size} is more than the {images} training images"
            found.append(("recipe.batch_size", f"{sentence}: at least one batch must be full"))
    return found


def check_cell(config: TrialConfig) -> list[tuple[str, str]]:
    """Mistakes of a whole trial: its compression and surplus, and the lengths of its stages."""
    if found := compression.misfits(config):
        return found
    for recipe in (step.recipe for step in steps(config)):
        if recipe.schedule.warmup_epochs > recipe.epochs:
            sentence = f"{recipe.schedule.warmup_epochs:g} is longer than a stage of"
            key = "recipe.schedule.warmup_epochs"
            return [(key, f"{sentence} {recipe.epochs} epochs, and would never end")]
    return []


def _split(
    args: list[str], options: Mapping[str, Option], mistakes: Mistakes
) -> tuple[dict[str, str], list[str], dict[str, Any]]:
    """Group choices, dotted overrides, and values of the verb's options; mistakes are left out."""
    groups: dict[str, str] = {}
    overrides: list[str] = []
    arguments = read_arguments(args, options)
    for sentence in arguments.mistakes:
        mistakes.add_sentence(sentence)
    for key, value in arguments.others:
        if key in GROUPS and value not in choices(key):
            mistakes.add(key, f"there is no {key} '{value}'{nearest(value, choices(key))}")
        elif key in ("grid", "store", *GROUPS):
            groups[key] = value  # as it is: paths need no quoting
        elif (top := key.lstrip("+~").partition(".")[0]) not in KEYS:
            valid = [*options, "grid", *GROUPS, *KEYS]
            mistakes.add(key, f"there is no option or config key '{top}'{nearest(top, valid)}")
        else:
            overrides.append(f"{key}={value}")
    return groups, overrides, arguments.options
