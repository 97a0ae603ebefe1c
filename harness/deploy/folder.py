"""The folder of an exported network: `model.safetensors`, `config.json` and `README.md`.

Nothing in such a folder can run code. `config.json` has the config of the stage, from which `load`
builds the module, and what a user of the network has to know: input size, normalisation, classes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from harness.compress import masks as pruning
from harness.data.catalog import DatasetInfo, find_tree, info_of
from harness.data.tree import class_names
from harness.errors import UserError
from harness.files import Damaged, atomic_write, write_json
from harness.models.counts import count
from harness.schema import StageConfig
from harness.store.identity import identity
from harness.store.records import Record, check, read_json
from harness.store.store import Store
from harness.train import checkpoint
from harness.train.network import finished_module

WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
Positive = Annotated[int, Field(gt=0)]


class _Input(Record):
    channels: Positive
    resolution: Positive


class _Description(Record):
    """The keys of `config.json` from which the module is built."""

    format: Literal[1]
    num_classes: Positive
    input: _Input
    stage: str
    training: dict[str, Any]


def read_network(
    store: Store, stage: str, config: StageConfig
) -> tuple[nn.Module, pruning.Masks | None]:
    """Return the network of a finished stage in eval mode on the CPU, with its masks applied.

    Raises UserError if its weights are damaged.
    """
    try:
        saved = checkpoint.read_final(store.folder(stage), stage)
    except Damaged as error:
        raise UserError(
            f"{error}: copy the file again, or delete that stage's folder and launch the grid"
        ) from error
    info = info_of(config.dataset)
    side = config.dataset.resolution or info.resolution
    module = finished_module(config, saved["model"], info.num_classes, side).eval()
    if saved["masks"] is None:
        return module, None
    masks = pruning.unpack(saved["masks"], module)
    pruning.apply_masks(module, masks)
    return module, masks


def describe(
    module: nn.Module,
    masks: pruning.Masks | None,
    config: StageConfig,
    stage: str,
    trial: str,
    data_root: str | None = None,
) -> dict[str, Any]:
    """Return the content of `config.json`.

    Classes have names where the data set is a folder of images that is found, under `data_root` or
    in the usual places.
    """
    info = info_of(config.dataset)
    side = config.dataset.resolution or info.resolution
    counts = count(module, side, masks)
    return {
        "format": 1,
        "stage": stage,
        "trial": trial,
        "num_classes": info.num_classes,
        "classes": _class_names(info, data_root),
        "input": {
            "name": "images",
            "dtype": "float32",
            "layout": "NCHW",
            "channels": info.channels,
            "resolution": side,
            "range": "RGB scaled to [0, 1], then (x - mean) / std",
            "mean": list(info.mean),
            "std": list(info.std),
        },
        "output": {"name": "logits", "dtype": "float32"},
        "parameters": {"total": counts.params_total, "nonzero": counts.params_nonzero},
        "multiply_adds": counts.macs_dense,
        "weights_sha256": checkpoint.weights_hash(module.state_dict()),
        "training": identity(config),
    }


def _class_names(info: DatasetInfo, data_root: str | None) -> list[str] | None:
    """Return the names of the classes in the order of the logits, None if they are not known."""
    tree = find_tree(info, data_root) if info.reader is None else None
    try:
        names = [] if tree is None else class_names(tree)
    except UserError:  # the folder is no longer what was trained on
        return None
    return names if len(names) == info.num_classes else None


def write(folder: Path, module: nn.Module, description: Mapping[str, Any], card: str) -> None:
    """Write the three files into a folder that exists. Raises CannotWrite."""
    # clones, because the format refuses tensors that share memory
    weights = {name: t.detach().contiguous().clone() for name, t in module.state_dict().items()}
    save_file(weights, folder / WEIGHTS, {"format": "pt"})
    write_json(folder / CONFIG, dict(description))
    atomic_write(folder / CARD, card.encode())


def load(folder: str | Path) -> nn.Module:
    """Return the module of an exported folder, in eval mode on the CPU.

    Raises:
        UserError: a file is missing, damaged, or of another version.
    """
    folder = Path(folder).expanduser()
    try:
        path = folder / CONFIG
        description = check(path, read_json(path, follow_links=True), _Description)
        config = StageConfig.model_validate_json(json.dumps(description.training))
        weights = load_file(folder / WEIGHTS)
        module = finished_module(
            config, weights, description.num_classes, description.input.resolution
        )
    except FileNotFoundError as error:
        raise UserError(
            f"{folder} is not a folder that harness.export wrote: {error.filename or WEIGHTS} is "
            "missing; name the folder of one network"
        ) from error
    except (Damaged, SafetensorError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"{folder} cannot be loaded ({reason}): export it again") from error
    return module.eval()
