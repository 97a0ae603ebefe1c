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
from harness.models.registry import TIMM, timm_names
from harness.schema import StageConfig
from harness.store.identity import STAGE_ID
from harness.store.store import Store


def stage_folder(name: str, store: Path) -> Path | None:
    """The folder of the stage that a teacher's name means; None for timm's models."""
    if name.startswith(TIMM):
        return None
    if STAGE_ID.fullmatch(name):
        return Store(store).folder(name)
    return Path(name).expanduser().parent.parent


def stage_config(folder: Path) -> StageConfig:
    """A stage's config, checked. Raises UserError."""
    try:
        return StageConfig.model_validate_json((folder / "config.json").read_text())
    except (OSError, ValueError) as error:
        raise UserError(
            f"teacher: {folder} holds no readable config.json of a stage of this version; name a "
            "finished stage of the store, a final.pt in a stage's folder, or timm:NAME."
        ) from error


def misfit(name: str, store: Path, dataset: str) -> str | None:
    """A sentence about a teacher that is not there, or does not suit the data set; None: it does.

    Classes and resolution of timm's pretrained models are checked when they are loaded.
    """
    info: DatasetInfo = CATALOG[dataset]
    if name.startswith(TIMM):
        model, _, weights = name.removeprefix(TIMM).partition("@")
        known = timm_names()
        if known and model not in known:
            return f"timm has no model '{model}'{nearest(model, known)}"
        if weights and not Path(weights).expanduser().is_file():
            return f"there is no file of weights {weights} (from {Path.cwd()})"
        return None
    try:
        folder = stage_folder(name, store)
        assert folder is not None
        config = stage_config(folder)
    except UserError as error:
        return str(error).removeprefix("teacher: ")
    if not (folder / "checkpoint" / "final.pt").exists():
        return f"the stage {name} has no final weights: it is not finished, or they were deleted"
    if config.dataset.name == dataset:
        return None
    own = CATALOG[config.dataset.name]
    for what, its, ours in (
        ("classes", own.num_classes, info.num_classes),
        ("channels", own.channels, info.channels),
        ("pixels", own.resolution, info.resolution),
    ):
        if its != ours:
            return (
                f"the teacher {name} was trained on {own.name} with {its} {what} and {dataset} "
                f"has {ours}: choose a teacher trained on {dataset}"
            )
    return None
