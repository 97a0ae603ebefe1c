"""How a teacher is named, and whether it suits a data set: said without loading it.

0123456789abcdef                a finished stage of the store
timm:NAME                       a model of timm's with its pretrained weights
timm:NAME@weights.pt            the same with a state dict of your own
path/to/final.pt                a stage's checkpoint from elsewhere, its config.json two up
"""

from __future__ import annotations

from pathlib import Path

from harness.data.catalog import CATALOG, DatasetInfo
from harness.errors import UserError, nearest
from harness.models.registry import FAMILIES, TIMM, timm_names
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

    Resolutions of timm's models are checked when they are loaded.
    """
    info = CATALOG[dataset.name]
    if name.startswith(TIMM):
        return _misfit_of_timm(name.removeprefix(TIMM), info)
    try:
        folder = stage_folder(name, store)
        assert folder is not None
        config = stage_config(folder)
    except UserError as error:
        return str(error).removeprefix("teacher: ")
    if not (folder / "checkpoint" / "final.pt").exists():
        return f"the stage {name} has no final weights: it is not finished, or they were deleted"
    own = CATALOG[config.dataset.name]
    its_side = config.dataset.resolution or own.resolution
    our_side = dataset.resolution or info.resolution
    family = FAMILIES.get(config.model.family)
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
        sentence = f"the teacher {name} is a {family.name}, which takes images of one size"
        return f"{sentence}: leave out dataset.start_resolution, or choose another"
    return None


def _misfit_of_timm(name: str, info: DatasetInfo) -> str | None:
    model, _, weights = name.partition("@")
    known, architecture = timm_names(), model.partition(".")[0]  # resnet50.a1_in1k
    if known and architecture not in known:
        return f"timm has no model '{architecture}'{nearest(architecture, known)}"
    if not weights and info.num_classes < FEWEST_OF_TIMM:
        return (
            f"timm's own weights of {model} tell {FEWEST_OF_TIMM:,} classes apart or more and "
            f"{info.name} has {info.num_classes}: choose a teacher trained on {info.name}"
        )
    if weights and not _path(weights).is_file():
        return f"there is no file of weights {weights} (from {Path.cwd()})"
    return None
