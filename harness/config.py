"""From a command line to frozen models: Hydra composes, pydantic checks, every mistake is named.

    load(["grid=quickstart", "recipe.epochs=3", "cluster.workers=2", "dry_run=true"], KNOBS)

Hydra's compose side only: `grids/` is its root, `slurm/` on its search path. A verb declares its
own knobs (`dry_run`, `where`), which are words of the command line and no part of any config.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.compress import check as compression
from harness.errors import UserError, nearest
from harness.schema import ClusterConfig, DatasetConfig, RunConfig, TrialConfig
from harness.store.store import SWEEP_NAME
from harness.sweep.grid import Grid, make_grid
from harness.sweep.mistakes import Mistakes, of_validation
from harness.teacher import names as teachers

ROOT = Path(__file__).resolve().parent.parent
GRIDS = ROOT / "grids"
PROFILES = ROOT / "slurm"
GROUPS = ("dataset", "model", "recipe")
LANGUAGE = ("axes", "zip", "also", "exclude")
OPERATIONAL = ("run", "cluster", "store")
COMMANDS = ("setup", "python", "extra")
"""Keys of `cluster.slurm` that end up in a shell or in sbatch's options."""
_WORD = re.compile(r"[\w.-]+")


@dataclass(frozen=True)
class Launch:
    """What a command line asks for; `knobs` has the verb's own words."""

    grid: Grid
    run: RunConfig
    cluster: ClusterConfig
    store: Path
    knobs: Mapping[str, Any] = field(default_factory=dict)
    resolved: Mapping[str, Any] = field(default_factory=dict)  # the composed config, plain


def grid_files() -> dict[str, str]:
    """Shipped grids by name, with the first comment line of each."""
    found = {}
    for path in sorted((GRIDS / "grid").glob("*.yaml")):
        first = path.read_text().lstrip().splitlines()[0]
        found[path.stem] = first.lstrip("# ").strip() if first.startswith("#") else ""
    return found


def load(args: list[str], knobs: Mapping[str, type] | None = None, trains: bool = False) -> Launch:
    """Compose, check and expand. Raises UserError naming every mistake.

    With `trains`, for verbs that train, teachers have to be there and to fit. Those that only look
    show a finished sweep also after its teacher's weights were deleted.
    """
    words, overrides, values = _split(args, knobs or {})
    if "grid" not in words:
        raise UserError(
            f"which grid? Say grid=NAME{nearest('', grid_files())} or grid=path/to/file.yaml"
        )
    said = _compose(words, overrides)
    mistakes = Mistakes()
    known = (*TrialConfig.model_fields, *LANGUAGE, *OPERATIONAL)
    for key in said:
        if key not in known:
            mistakes.unknown(str(key), str(key), known)
    run = of_validation(RunConfig, said.get("run") or {}, mistakes, prefix="run.")
    cluster = of_validation(ClusterConfig, said.get("cluster") or {}, mistakes, prefix="cluster.")
    store = said.get("store")
    if not isinstance(store, str) or not store:
        mistakes.add("store", f"must be the path of a folder, not {store!r}")
    name = Path(words["grid"]).stem
    try:
        grid = make_grid(name, said, check_trial, compression.misfits)
    except UserError as error:
        for line in str(error).splitlines()[1:]:
            mistakes.found.setdefault(line.strip())
        grid = None
    asked = set() if grid is None else {trial.config.teacher for trial in grid.trials}
    if any(teacher.name for teacher in asked) and not any(teacher.acts for teacher in asked):
        sentence = "it does nothing: set teacher.labels, target with candidates, or cap"
        mistakes.add("teacher", sentence)
    for teacher, data in sorted(_teachers(grid) if trains else (), key=str):
        if problem := teachers.misfit(teacher, Path(str(store)), data):
            mistakes.add("teacher.name", problem)
    mistakes.raise_any(f"the grid {name} has")
    assert grid is not None
    assert run is not None
    assert cluster is not None
    return Launch(grid, run, cluster, Path(str(store)), values, said)


def _teachers(grid: Grid | None) -> set[tuple[str, DatasetConfig]]:
    """Each teacher's name, with the data sets that it is asked about."""
    trials = () if grid is None else grid.trials
    configs = (trial.config for trial in trials if trial.config.teacher.acts)
    return {(str(config.teacher.name), config.dataset) for config in configs}


def check_trial(config: TrialConfig) -> list[tuple[str, str]]:
    """Mistakes that the models cannot see: unknown data sets, families, policies; bad sizes."""
    from harness.augment.policy import parse_policy, with_magnitude
    from harness.data.catalog import CATALOG, misfits
    from harness.models import registry

    found = []
    data = CATALOG.get(config.dataset.name)
    side = config.dataset.resolution or (data.resolution if data else None)
    family = config.model.family
    if config.dataset.start_resolution is not None and registry.takes_one_size(family):
        sentence = f"{family} learns a position for each patch of one size of images"
        found.append(("dataset.start_resolution", f"{sentence}; leave it out."))
    for path, sentences in (
        ("dataset", misfits(config.dataset)),
        ("model", registry.check(config.model, side)),
    ):
        for sentence in sentences:
            key, _, rest = sentence.partition(": ")
            known = key.startswith(f"{path}.")
            found.append((key, rest) if known else (path, sentence))
    try:
        parse_policy(with_magnitude(config.augment.policy, config.augment.magnitude))
    except UserError as error:
        found.append(("augment.policy", str(error)))
    if (config.augment.mixup or config.augment.cutmix) and config.recipe.batch_size % 2:
        sentence = f"{config.recipe.batch_size} is odd, and mixup and cutmix pair neighbours"
        found.append(("recipe.batch_size", f"{sentence}: make it even"))
    return found


def _split(
    args: list[str], knobs: Mapping[str, type]
) -> tuple[dict[str, str], list[str], dict[str, Any]]:
    """Group choices, dotted overrides, and the verb's knobs."""
    words: dict[str, str] = {}
    overrides: list[str] = []
    values: dict[str, Any] = {}
    for arg in args:
        key, equals, value = arg.partition("=")
        if not equals or not key:
            raise UserError(f"'{arg}' is no key=value: write grid=quickstart, dry_run=true, ...")
        if key in knobs:
            values[key] = _knob(key, value, knobs[key])
        elif key in ("grid", "cluster", "store", *GROUPS):
            words[key] = value  # as it is: paths need no quoting
        elif "." not in key and key not in (*LANGUAGE, *OPERATIONAL, *TrialConfig.model_fields):
            choices = [*knobs, "grid", "cluster", "store", "seed", *GROUPS]
            raise UserError(f"no knob or key '{key}'{nearest(key, choices)}")
        else:
            overrides.append(arg)
    return words, overrides, values


def _knob(key: str, value: str, kind: type) -> Any:
    if kind is bool:
        if value.lower() in ("true", "false"):
            return value.lower() == "true"
        raise UserError(f"{key} is true or false, not '{value}'")
    if not value:
        raise UserError(f"{key} has no value")
    return value


def _compose(words: Mapping[str, str], overrides: list[str]) -> dict[str, Any]:
    """The composed config as plain dicts and lists."""
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    with tempfile.TemporaryDirectory(prefix="grid-") as scratch:
        grid = _grid_name(words["grid"], Path(scratch))
        choices = [f"grid@_global_={grid}"]
        groups = [key for key in words if key not in ("grid", "store")]
        choices += [f"{key}={_checked(key, words[key])}" for key in groups]
        # `++`: add or replace; a key that no model knows is found, with its nearest, later
        changes = [arg if arg[0] in "+~" else f"++{arg}" for arg in overrides]
        roots = ",".join(_quoted(f"file://{root}") for root in (PROFILES, scratch))
        search = f"hydra.searchpath=[{roots}]"
        GlobalHydra.instance().clear()
        try:
            with initialize_config_dir(str(GRIDS), version_base="1.3", job_name="harness"):
                config = compose("launch", overrides=[*choices, search, *changes])
            _refuse_resolvers(OmegaConf.to_container(config, resolve=False), "")
            said = OmegaConf.to_container(config, resolve=True)
        except (HydraException, OmegaConfBaseException) as error:
            raise UserError(_explained(error, words, scratch)) from error
        except Exception as error:
            if type(error).__module__.partition(".")[0] == "yaml":
                text = " ".join(str(error).split()).replace(scratch, words["grid"])
                raise UserError(f"a config file is not valid YAML: {text}") from error
            raise
    assert isinstance(said, dict)
    plain = {str(key): value for key, value in said.items()}
    return {**plain, "store": words["store"]} if "store" in words else plain


def _quoted(text: str) -> str:
    """A string in Hydra's override grammar."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _grid_name(word: str, scratch: Path) -> str:
    """The name under which Hydra finds the grid; a file from elsewhere is copied to `scratch`."""
    if not word.endswith((".yaml", ".yml")) and "/" not in word:
        if word not in grid_files():
            raise UserError(
                f"there is no grid '{word}'{nearest(word, grid_files())}; "
                "a file of your own is named by its path, grid=path/to/file.yaml"
            )
        return word
    path = Path(word).expanduser()
    if not path.is_file():
        raise UserError(f"there is no grid file {word}: check the path (from {Path.cwd()})")
    if not SWEEP_NAME.fullmatch(path.stem):
        raise UserError(
            f"the grid file {path.name} names its sweep, and '{path.stem}' cannot be one: use "
            "letters, digits, '.', '_' and '-', beginning with a letter or digit"
        )
    _refuse_commands(path)
    (scratch / "grid").mkdir()
    shutil.copyfile(path, scratch / "grid" / f"from_file_{path.stem}.yaml")
    return f"from_file_{path.stem}"


def _refuse_commands(path: Path) -> None:
    """A grid says what to train. What a cluster executes, and where to write, is not its word."""
    import yaml

    try:
        said = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError):
        return  # Hydra says it better
    cluster = said.get("cluster") if isinstance(said, dict) else None
    slurm = cluster.get("slurm") if isinstance(cluster, dict) else None
    found = [f"cluster.slurm.{key}" for key in COMMANDS if isinstance(slurm, dict) and key in slurm]
    if isinstance(said, dict) and "store" in said:
        found.append("store")
    if found:
        raise UserError(
            f"the grid file {path} sets {', '.join(found)}: a grid may come from anyone, so say "
            "that on the command line or in a profile of slurm/cluster/"
        )


def _checked(key: str, value: str) -> str:
    """A group's choice, which is the name of a file in it."""
    folder = (PROFILES if key == "cluster" else GRIDS) / key
    choices = [path.stem for path in folder.glob("*.yaml")]
    if value not in choices or not _WORD.fullmatch(value):
        raise UserError(f"there is no {key} '{value}'{nearest(value, choices)}")
    return value


def _refuse_resolvers(value: Any, place: str) -> None:
    """Interpolations may point at other keys, and not call anything (environment, files)."""
    if isinstance(value, dict):
        for key, inner in value.items():
            _refuse_resolvers(inner, f"{place}.{key}" if place else str(key))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            _refuse_resolvers(inner, f"{place}[{number}]")
    elif isinstance(value, str) and re.search(r"\$\{[^}]*:", value):
        raise UserError(f"{place}: {value!r} calls a resolver; only ${{other.key}} is allowed here")


def _explained(error: Exception, words: Mapping[str, str], scratch: str) -> str:
    """A Hydra or OmegaConf error as a sentence, without its traceback or our scratch folder."""
    text = " ".join(str(error).split()).replace(scratch, "").replace("from_file_", "")
    cause = error.__cause__
    if cause is not None and type(cause).__module__.partition(".")[0] == "yaml":
        text += " " + " ".join(str(cause).split())
    return f"cannot compose grid={words['grid']}: {text[:600]}"
