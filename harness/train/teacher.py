"""A teacher: a trained network that labels, chooses or weighs the images of another training."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from harness.augment.batch_transform import BatchTransform
from harness.data.catalog import DatasetInfo, info_of
from harness.errors import UserError
from harness.files import Damaged
from harness.models.counts import count
from harness.models.registry import TIMM
from harness.schema import DatasetConfig
from harness.store.identity import digest
from harness.store.records import read_json
from harness.sweep.teachers import misfit, stage_config, stage_folder
from harness.train import checkpoint
from harness.train.network import finished_module


@dataclass(frozen=True)
class Teacher:
    """A network in eval mode, with the transform that normalises images as in its training."""

    module: nn.Module
    transform: BatchTransform
    _macs: dict[int, int] = field(default_factory=dict)

    def normalisation(self) -> dict[str, list[float]]:
        """Return the mean and deviation of the teacher's input, as the provenance records them."""
        return {"mean": list(self.transform.mean), "std": list(self.transform.std)}

    def macs(self, side: int) -> int:
        """Return the multiply-adds of a forward pass of one image of `side` pixels."""
        if side not in self._macs:  # counting takes a tenth of a second
            self._macs[side] = count(self.module, side).macs_dense
        return self._macs[side]

    @torch.no_grad()
    def logits(
        self, images: torch.Tensor, normalised_by: BatchTransform | None = None
    ) -> torch.Tensor:
        """Return logits fp32 [N, classes] of normalised images [N, 3, H, W].

        `normalised_by` is the transform that made the images, by default the teacher's own. Images
        of another mean and deviation are normalised again for the teacher.
        """
        old, new = normalised_by or self.transform, self.transform
        if (old.mean, old.std) != (new.mean, new.std):
            images = images * _per_channel(old.std, images) + _per_channel(old.mean, images)
            images = (images - _per_channel(new.mean, images)) / _per_channel(new.std, images)
        logits: torch.Tensor = self.module(images).float()
        return logits


def _per_channel(values: tuple[float, ...], images: torch.Tensor) -> torch.Tensor:
    """Return values [C] as a tensor [C, 1, 1] of the images' type, on their device."""
    return torch.tensor(values, dtype=images.dtype, device=images.device)[:, None, None]


def load_teacher(name: str, store: Path, dataset: DatasetConfig, device: torch.device) -> Teacher:
    """Return the teacher of that name (`sweep/teachers.py` lists the forms of names).

    Raises:
        UserError: the teacher is missing or damaged, or does not suit the data set's classes or
            images.
    """
    if problem := misfit(name, store, dataset):
        raise UserError(f"teacher: {problem}.")
    info = info_of(dataset)
    resolution = dataset.resolution or info.resolution
    if name.startswith(TIMM):
        module, transform = _from_timm(name.removeprefix(TIMM), info.num_classes)
    else:
        folder = stage_folder(name, store)
        assert folder is not None
        module, transform = _from_stage(folder, info)
    module = module.to(device).eval().requires_grad_(False)
    try:
        with torch.no_grad():
            logits = module(torch.zeros(2, 3, resolution, resolution, device=device))
    except (RuntimeError, AssertionError) as error:
        raise UserError(
            f"teacher: {name} does not take the images of {dataset.name}, 3 x {resolution} "
            f"x {resolution}: {str(error).splitlines()[0]}."
        ) from error
    if logits.shape != (2, info.num_classes):
        raise UserError(
            f"teacher: {name} has {logits.shape[-1]} classes and {dataset.name} has "
            f"{info.num_classes}: choose a teacher trained on {dataset.name}."
        )
    return Teacher(module, transform)


def _from_stage(folder: Path, info: DatasetInfo) -> tuple[nn.Module, BatchTransform]:
    """Return the network of a finished stage, with its final weights."""
    config = stage_config(folder)
    try:
        # the id comes from the config, because a copied folder may have any name
        stage = digest(read_json(folder / "config.json", follow_links=True))
        weights = checkpoint.read_final(folder, stage, follow_links=True)["model"]
    except Damaged as error:
        raise UserError(
            f"teacher: its weights cannot be read: {error}. Train that stage again (delete its "
            "folder and launch its grid), copy the file again, or name another teacher."
        ) from error
    info_of_teacher = info_of(config.dataset)
    side = config.dataset.resolution or info_of_teacher.resolution
    module = finished_module(config, weights, info.num_classes, side)
    return module, BatchTransform(mean=info_of_teacher.mean, std=info_of_teacher.std)


def _from_timm(name: str, num_classes: int) -> tuple[nn.Module, BatchTransform]:
    """Return a model of timm's: NAME with pretrained weights, or NAME@FILE with weights of a file.

    Both take images that are normalised by the mean and deviation that timm records for NAME.
    """
    import timm

    model, _, weights = name.partition("@")
    try:
        if not weights:
            module = timm.create_model(model, pretrained=True)
        else:
            module = timm.create_model(model, num_classes=num_classes)
            module.load_state_dict(checkpoint.load_tensors(Path(weights).expanduser().read_bytes()))
    except Exception as error:  # downloads, files and shapes fail with many exceptions
        raise UserError(
            f"teacher: {name} cannot be loaded: {' '.join(str(error).split())[:300]}."
        ) from error
    recorded: dict[str, Any] = vars(module)["pretrained_cfg"]
    return module, BatchTransform(mean=tuple(recorded["mean"]), std=tuple(recorded["std"]))
