"""Find what the name of a teacher stands for, and check that the teacher suits a data set.

The weights are not loaded for that. These names are valid:

0123456789abcdef          a finished stage of the store
timm:NAME                 a model of timm with its pretrained weights
timm:NAME@weights.pt      the same architecture with a state dict of your own
path/checkpoint/final.pt  the final weights of a stage that was copied from another store; the
                          folder `path` also holds the config.json of the stage
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from harness.data.catalog import CATALOG, find_info, info_of, training_sides
from harness.errors import UserError, nearest
from harness.files import Damaged
from harness.models import registry
from harness.models.registry import TIMM, timm_names
from harness.schema import SCHEMA_NUMBER, DatasetConfig, ModelConfig, StageConfig
from harness.store.identity import STAGE_ID
from harness.store.records import LONGEST, read_bytes
from harness.store.store import Store

FEWEST_CLASSES_OF_TIMM = 1000  # timm's pretrained weights have ImageNet's classes or more


def stage_folder(name: str, store: Path) -> Path | None:
    """Return the folder of the stage that a teacher's name stands for; None for a timm model."""
    if name.startswith(TIMM):
        return None
    if STAGE_ID.fullmatch(name):
        return Store(store).folder(name)
    return _path(name).parent.parent


def _path(name: str) -> Path:
    """Return the path with `~` or `~user` expanded, or unchanged if that user does not exist."""
    try:
        return Path(name).expanduser()
    except RuntimeError:
        return Path(name)


def stage_config(folder: Path) -> StageConfig:
    """Return the config of the stage in `folder`. Raises UserError if it cannot be read."""
    try:
        content = read_bytes(folder / "config.json", follow_links=True, longest=LONGEST)
        config = StageConfig.model_validate_json(content)
        if config.schema_number != SCHEMA_NUMBER:  # its keys may mean something else
            raise ValueError(f"schema_number {config.schema_number}")
        return config
    except (OSError, ValueError, Damaged) as error:
        raise UserError(
            f"teacher: {folder} does not have a readable config.json of a stage of this version. "
            "Name a finished stage of the store, a final.pt in a stage's folder, or timm:NAME."
        ) from error


def misfit(name: str, store: Path, dataset: DatasetConfig) -> str | None:
    """Return why a teacher cannot be used with a data set, or None if it can.

    For a model of timm, its existence, its classes and its image size can be checked only where
    timm can be imported. Otherwise this returns None, and `unchecked` returns a note.
    """
    if name.startswith(TIMM):
        return _misfit_of_timm(name.removeprefix(TIMM), dataset)
    if problem := _missing_weights(name, store):
        return problem
    folder = stage_folder(name, store)
    assert folder is not None
    try:
        config = stage_config(folder)
    except UserError as error:
        return str(error).removeprefix("teacher: ")
    return _misfit_of_stage(name, config, dataset)


def _missing_weights(name: str, store: Path) -> str | None:
    """Return why a stage has no final weights that a teacher can use, or None if it has."""
    if not STAGE_ID.fullmatch(name):
        path = _path(name)
        if path.name == "final.pt" and path.parent.name == "checkpoint" and path.is_file():
            return None
        return (
            f"{name} is not a file checkpoint/final.pt in a stage's folder (from {Path.cwd()}): "
            "name one, or a finished stage of the store, or timm:NAME"
        )
    stages = Store(store)
    if not stages.folder(name).exists():
        return f"the store {stages.root} has no stage {name}: name a finished one, or timm:NAME"
    try:
        status = stages.result(name)["status"]
    except FileNotFoundError:
        return f"the stage {name} has no result: it is not finished"
    except Damaged as error:
        return f"{error}: launch the teacher's grid again"
    if status != "done":
        return f"the training of the stage {name} has the status {status}: choose another teacher"
    if not stages.has_weights(name):
        return (
            f"the stage {name} has no final weights: they were deleted. Train it again with "
            "run.keep_weights=all"
        )
    return None


def _misfit_of_stage(name: str, config: StageConfig, dataset: DatasetConfig) -> str | None:
    """Return why a stage cannot be the teacher for a data set."""
    student_data, teacher_data = info_of(dataset), find_info(config.dataset)
    if teacher_data is None:
        return (
            f"the teacher {name} was trained on {config.dataset.name}, which is not a data set "
            f"here{nearest(config.dataset.name, CATALOG)}: choose another, or add that data set"
        )
    takes_one_size = registry.takes_one_size(config.model.family)
    same_data = (dataset.name, dataset.content) == (config.dataset.name, config.dataset.content)
    teacher_side = config.dataset.resolution or teacher_data.resolution
    student_side = dataset.resolution or student_data.resolution
    if same_data and not takes_one_size:
        student_side = teacher_side  # the same images; a convolutional network takes any size
    for unit, teacher_value, student_value in (
        ("classes", teacher_data.num_classes, student_data.num_classes),
        ("channels", teacher_data.channels, student_data.channels),
        ("pixels", teacher_side, student_side),
    ):
        if teacher_value != student_value:
            return (
                f"the teacher {name} was trained on {teacher_data.name} with {teacher_value} "
                f"{unit} and {dataset.name} has {student_value}: choose a teacher trained on "
                f"{dataset.name}"
            )
    if takes_one_size and dataset.start_resolution is not None:
        return _takes_one_size(f"the teacher {name} ({config.model.family})")
    if problem := _refused_images(config.model, dataset):
        return f"the teacher {name}: {problem}"
    for key in ("validation_size", "split_seed"):
        teacher_value, student_value = getattr(config.dataset, key), getattr(dataset, key)
        if same_data and teacher_value != student_value:
            return (
                f"the teacher {name} was trained with dataset.{key} {teacher_value} and here it is "
                f"{student_value}, so it was trained on images that are validation images here: "
                "choose a teacher trained with the same split"
            )
    return None


def _refused_images(model: ModelConfig, dataset: DatasetConfig) -> str | None:
    """Return why a teacher's model does not take all training images, or None if it does.

    What a model of timm takes is known where timm can be imported; see `unchecked`.
    """
    sides = training_sides(dataset)
    if problems := [problem for side in sides for problem in registry.check(model, side)]:
        return problems[0]
    if model.family.startswith(TIMM) and importlib.util.find_spec("timm") is not None:
        from harness.models.trial_forward import check_forward  # imports torch, as timm does

        try:
            check_forward(model, info_of(dataset).num_classes, sides, training=False)
        except UserError as error:
            return str(error)
    return None


def _takes_one_size(teacher: str) -> str:
    """Return the message for a teacher of one image size where the training images grow."""
    return (
        f"{teacher} takes images of one size: set dataset.start_resolution=null, or choose another"
    )


def _misfit_of_timm(name: str, dataset: DatasetConfig) -> str | None:
    """Return why a model of timm cannot be the teacher for a data set."""
    info = info_of(dataset)
    model, _, weights = name.partition("@")
    architecture = model.partition(".")[0]  # "resnet50" of "resnet50.a1_in1k"
    names = timm_names()  # none where timm cannot be imported
    if names and architecture not in names:
        return f"timm has no model '{architecture}'{nearest(architecture, names)}"
    if weights and not _path(weights).is_file():
        return f"the file of weights {weights} does not exist: check the path (from {Path.cwd()})"
    if not weights and info.num_classes < FEWEST_CLASSES_OF_TIMM:
        return (
            f"timm's own weights of {model} have {FEWEST_CLASSES_OF_TIMM:,} classes or more and "
            f"{info.name} has {info.num_classes}: choose a teacher trained on {info.name}"
        )
    return _misfit_of_timm_weights(model, bool(weights), dataset)


def _misfit_of_timm_weights(model: str, own_weights: bool, dataset: DatasetConfig) -> str | None:
    """Return why timm's weights of a model do not suit a data set, or None if they do.

    Compares what timm records about the weights: tag, number of classes, and image size.
    """
    try:
        from timm.models import get_pretrained_cfg, list_pretrained
    except ImportError:
        return None  # `unchecked` reports it
    info, architecture = info_of(dataset), model.partition(".")[0]
    tags = list_pretrained(f"{architecture}.*")
    try:
        record = get_pretrained_cfg(model)
    except RuntimeError:  # no such tag
        return f"timm has no weights {model}{nearest(model, tags)}"
    if not own_weights and not tags:
        return f"timm has no weights of {model}: name a file, such as {TIMM}{model}@weights.pt"
    if record is None:
        return None
    if not own_weights and record.num_classes != info.num_classes:
        return (
            f"timm's weights {model} have {record.num_classes:,} classes and {info.name} has "
            f"{info.num_classes:,}: choose others{nearest(architecture, tags)}"
        )
    side, student_side = record.input_size[-1], dataset.resolution or info.resolution
    if record.fixed_input_size and side != student_side:
        return (
            f"timm's {model} takes images of {side} pixels and {info.name} has {student_side} "
            f"here: set dataset.resolution={side}, or choose another"
        )
    if record.fixed_input_size and dataset.start_resolution is not None:
        return _takes_one_size(f"timm's {model}")
    return _refused_images(ModelConfig(family=TIMM + architecture), dataset)


def unchecked(name: str) -> str | None:
    """Return a note about a teacher of timm that could not be checked here, or None."""
    if not name.startswith(TIMM):
        return None
    try:
        import timm  # noqa: F401
    except ImportError:
        return (
            f"timm cannot be imported here, so it was not checked whether the teacher {name} "
            "exists and has the classes and image size of the data set"
        )
    return None
