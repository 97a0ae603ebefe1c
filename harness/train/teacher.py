"""A teacher with its weights, ready to be asked."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from harness.augment.batch_transform import BatchTransform
from harness.compress.methods import METHODS
from harness.data.catalog import CATALOG, DatasetInfo
from harness.errors import UserError
from harness.files import Damaged, read_json
from harness.models import registry
from harness.models.counts import count
from harness.models.registry import TIMM
from harness.schema import DatasetConfig
from harness.store.identity import digest
from harness.sweep.teachers import misfit, stage_config, stage_folder
from harness.train import checkpoint


@dataclass(frozen=True)
class Teacher:
    """`transform` normalises as the teacher was trained."""

    module: nn.Module
    transform: BatchTransform
    _macs: dict[int, int] = field(default_factory=dict)

    def macs(self, side: int) -> int:
        """Multiply-adds of the forward pass of one image of this side."""
        if side not in self._macs:
            self._macs[side] = count(self.module, side).macs_dense
        return self._macs[side]

    @torch.no_grad()
    def logits(self, images: torch.Tensor, seen: BatchTransform | None = None) -> torch.Tensor:
        """Logits fp32 [N, classes] of images [N, 3, H, W] that were normalised by `seen`.

        Without `seen`, by the teacher's own transform.
        """
        if seen is not None and (seen.mean, seen.std) != (self.transform.mean, self.transform.std):
            images = images * _row(seen.std, images) + _row(seen.mean, images)
            images = (images - _row(self.transform.mean, images)) / _row(self.transform.std, images)
        logits: torch.Tensor = self.module(images).float()
        return logits


def _row(values: tuple[float, ...], like: torch.Tensor) -> torch.Tensor:
    return torch.tensor(values, dtype=like.dtype, device=like.device)[:, None, None]


def load(name: str, store: Path, dataset: DatasetConfig, device: torch.device) -> Teacher:
    """The teacher of that name, in eval mode.

    Raises:
        UserError: one that is not there, is damaged, or does not suit the data set's classes or
            images.
    """
    if problem := misfit(name, store, dataset):
        raise UserError(f"teacher: {problem}.")
    info = CATALOG[dataset.name]
    resolution = dataset.resolution or info.resolution
    if name.startswith(TIMM):
        module, transform = _from_timm(name.removeprefix(TIMM), info)
    else:
        folder = stage_folder(name, store)
        assert folder is not None
        module, transform = _from_stage(folder, info)
    module = module.to(device).eval().requires_grad_(False)
    try:
        with torch.no_grad():
            said = module(torch.zeros(2, 3, resolution, resolution, device=device))
    except (RuntimeError, AssertionError) as error:
        raise UserError(
            f"teacher: {name} does not take the images of {dataset.name}, 3 x {resolution} "
            f"x {resolution}: {str(error).splitlines()[0]}."
        ) from error
    if said.shape != (2, info.num_classes):
        raise UserError(
            f"teacher: {name} tells {said.shape[-1]} classes apart and {dataset.name} has "
            f"{info.num_classes}: choose a teacher trained on {dataset.name}."
        )
    return Teacher(module, transform)


def _from_stage(folder: Path, info: DatasetInfo) -> tuple[nn.Module, BatchTransform]:
    config = stage_config(folder)
    try:
        # its config names the stage: a folder from elsewhere may be called anything
        saved = checkpoint.read_final(folder, digest(read_json(folder / "config.json")))["model"]
    except Damaged as error:
        raise UserError(
            f"teacher: its weights cannot be read: {error}. Train that stage again (delete its "
            "folder and launch its grid), copy the file again, or name another teacher."
        ) from error
    module = registry.build(
        config.model,
        info.num_classes,
        seed=config.seed,
        resolution=config.dataset.resolution or CATALOG[config.dataset.name].resolution,
    )
    if config.prune is not None:
        METHODS.get(config.prune.method).fit(module, saved)
    module.load_state_dict(saved)
    own = CATALOG[config.dataset.name]
    return module, BatchTransform(mean=own.mean, std=own.std)


def _from_timm(name: str, info: DatasetInfo) -> tuple[nn.Module, BatchTransform]:
    import timm

    model, _, weights = name.partition("@")
    try:
        if not weights:
            module = timm.create_model(model, pretrained=True)
        else:
            module = timm.create_model(model, num_classes=info.num_classes)
            state = torch.load(Path(weights).expanduser(), map_location="cpu", weights_only=True)
            module.load_state_dict(state)
    except Exception as error:  # the hub, files and shapes fail in many ways
        raise UserError(
            f"teacher: {name} cannot be loaded: {' '.join(str(error).split())[:300]}."
        ) from error
    said: dict[str, Any] = vars(module)["pretrained_cfg"]
    if weights:
        return module, BatchTransform(mean=info.mean, std=info.std)
    return module, BatchTransform(mean=tuple(said["mean"]), std=tuple(said["std"]))


def cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Loss of each image, nats [N]; labels int64 [N]."""
    return F.cross_entropy(logits, labels, reduction="none")
