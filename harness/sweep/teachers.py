"""How a teacher is named, and whether it suits a data set: said without loading it.

0123456789abcdef                a finished stage of the store
timm:NAME                       a model of timm's with its pretrained weights
timm:NAME@weights.pt            the same with a state dict of your own
path/to/final.pt                a stage's checkpoint from elsewhere, its config.json two up
"""

from __future__ import annotations

from pathlib import Path

from harness.data.catalog import CATALOG
from harness.errors import UserError, nearest
from harness.files import Damaged
from harness.models.registry import TIMM, find_family, timm_names
from harness.schema import DatasetConfig, StageConfig
from harness.store.identity import STAGE_ID
from harness.store.store import Store

FEWEST_OF_TIMM = 1000  # classes of its pretrained weights: ImageNet's


def stage_folder(name: str, store: Path) -> Path | None:
    """The folder of the stage that a teacher's name means; None for timm's models."""
    if name.startswith(TIMM):
        return None
    if STAGE_ID.fullmatch(name):
        return Store(store).folder(name)
    return _path(name).parent.parent


def _path(name: str) -> Path:
    """With `~` written out, where there is such a user."""
    try:
        return Path(name).expanduser()
    except RuntimeError:
        return Path(name)


def stage_config(folder: Path) -> StageConfig:
    """A stage's config, checked. Raises UserError."""
    try:
        return StageConfig.model_validate_json((folder / "config.json").read_text())
    except (OSError, ValueError) as error:
        raise UserError(
            f"teacher: {folder} holds no readable config.json of a stage of this version; name a "
            "finished stage of the store, a final.pt in a stage's folder, or timm:NAME."
        ) from error


def misfit(name: str, store: Path, dataset: DatasetConfig) -> str | None:
    """A sentence about a teacher that is not there, or does not suit the data set; None: it does.

    Of timm's models, classes and image sizes are known where timm can be imported (`unchecked`).
    """
    if name.startswith(TIMM):
        return _misfit_of_timm(name.removeprefix(TIMM), dataset)
    if problem := _unfinished(name, store):
        return problem
    folder = stage_folder(name, store)
    assert folder is not None
    try:
        config = stage_config(folder)
    except UserError as error:
        return str(error).removeprefix("teacher: ")
    return _misfit_of_stage(name, config, dataset)


def _unfinished(name: str, store: Path) -> str | None:
    """Whether a stage's final weights are those of a finished training, and are there."""
    if not STAGE_ID.fullmatch(name):
        path = _path(name)
        if path.name == "final.pt" and path.parent.name == "checkpoint" and path.is_file():
            return None
        return (
            f"{name} is no file checkpoint/final.pt in a stage's folder (from {Path.cwd()}); name "
            "one, or a finished stage of the store, or timm:NAME"
        )
    stages = Store(store)
    if not stages.folder(name).exists():
        return f"the store {stages.root} has no stage {name}: name a finished one, or timm:NAME"
    try:
        status = stages.result(name)["status"]
    except FileNotFoundError:
        return f"the stage {name} has no result: it is not finished"
    except Damaged as error:
        return f"{error}; launch the teacher's grid again"
    if status != "done":
        return f"the training of the stage {name} {status}: choose another teacher"
    if not stages.has_weights(name):
        return f"the stage {name} has no final weights: they were deleted (run.keep_weights=all)"
    return None


def _misfit_of_stage(name: str, config: StageConfig, dataset: DatasetConfig) -> str | None:
    info, own = CATALOG[dataset.name], CATALOG[config.dataset.name]
    family = find_family(config.model.family)
    its_side = config.dataset.resolution or own.resolution
    our_side = dataset.resolution or info.resolution
    one_size = own is not info or (family is not None and family.patch)
    for what, its, ours in (
        ("classes", own.num_classes, info.num_classes),
        ("channels", own.channels, info.channels),
        ("pixels", its_side, our_side if one_size else its_side),
    ):
        if its != ours:
            return (
                f"the teacher {name} was trained on {own.name} with {its} {what} and "
                f"{dataset.name} has {ours}: choose a teacher trained on {dataset.name}"
            )
    if family is not None and family.patch and dataset.start_resolution is not None:
        return _one_size(f"the teacher {name} is a {family.name}, which takes")
    for key in ("validation_size", "split_seed"):
        its, ours = getattr(config.dataset, key), getattr(dataset, key)
        if own is info and its != ours:
            return (
                f"the teacher {name} was trained with dataset.{key} {its} and here it is {ours}, "
                "so it has learned images that are validation here: choose one of the same split"
            )
    return None


def _one_size(whose: str) -> str:
    """What to say where training images grow."""
    return f"{whose} images of one size: leave out dataset.start_resolution, or choose another"


def _misfit_of_timm(name: str, dataset: DatasetConfig) -> str | None:
    info = CATALOG[dataset.name]
    model, _, weights = name.partition("@")
    known, architecture = timm_names(), model.partition(".")[0]  # resnet50.a1_in1k
    if known and architecture not in known:
        return f"timm has no model '{architecture}'{nearest(architecture, known)}"
    if weights and not _path(weights).is_file():
        return f"there is no file of weights {weights} (from {Path.cwd()})"
    if not weights and info.num_classes < FEWEST_OF_TIMM:
        return (
            f"timm's own weights of {model} tell {FEWEST_OF_TIMM:,} classes apart or more and "
            f"{info.name} has {info.num_classes}: choose a teacher trained on {info.name}"
        )
    return _misfit_of_weights(model, bool(weights), dataset)


def _misfit_of_weights(model: str, own_weights: bool, dataset: DatasetConfig) -> str | None:
    """By timm's record of the weights: its tag, classes and size of images."""
    try:
        from timm.models import get_pretrained_cfg, list_pretrained
    except ImportError:
        return None  # `unchecked` says so
    info, architecture = CATALOG[dataset.name], model.partition(".")[0]
    tags = list_pretrained(f"{architecture}.*")
    try:
        found = get_pretrained_cfg(model)
    except RuntimeError:  # no such tag
        return f"timm has no weights {model}{nearest(model, tags)}"
    if not own_weights and not tags:
        return f"timm has no weights of {model}: give some, as {TIMM}{model}@weights.pt"
    if found is None:
        return None
    if not own_weights and found.num_classes != info.num_classes:
        return (
            f"timm's weights {model} tell {found.num_classes:,} classes apart and {info.name} has "
            f"{info.num_classes:,}: choose others{nearest(architecture, tags)}"
        )
    side, ours = found.input_size[-1], dataset.resolution or info.resolution
    if found.fixed_input_size and side != ours:
        return (
            f"timm's {model} takes images of {side} pixels and {info.name} has {ours} here: set "
            f"dataset.resolution={side}, or choose another"
        )
    if found.fixed_input_size and dataset.start_resolution is not None:
        return _one_size(f"timm's {model} takes")
    return None


def unchecked(name: str) -> str | None:
    """A sentence about a teacher of timm's that this machine knows too little about."""
    if not name.startswith(TIMM):
        return None
    try:
        import timm  # noqa: F401
    except ImportError:
        return (
            f"timm cannot be imported here, so whether the teacher {name} exists and fits in "
            "classes and image size was not checked"
        )
    return None
