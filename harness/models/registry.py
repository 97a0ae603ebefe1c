"""The model families that a grid can name. A family is one file here and one row below.

Torch-free until `build` or `roles` is called: a plan checks its models without it.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING

from harness.errors import UserError, nearest
from harness.schema import ModelConfig

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Family:
    """`module` is the file's name; `depths` are the valid ones, None where depth means nothing."""

    name: str
    module: str
    depths: tuple[int, ...] | None = None


_ROWS = (Family(name="cifar_resnet", module="cifar_resnet", depths=(8, 20, 32, 56)),)

FAMILIES: dict[str, Family] = {row.name: row for row in _ROWS}


def check(config: ModelConfig) -> list[str]:
    """Sentences about everything that is wrong with a model's config."""
    family = FAMILIES.get(config.family)
    if family is None:
        return [f"model.family: no family '{config.family}'{nearest(config.family, FAMILIES)}."]
    if family.depths is None:
        if config.depth is None:
            return []
        return [f"model.depth: {family.name} has no depth to choose; leave it out."]
    if config.depth in family.depths:
        return []
    valid = ", ".join(map(str, family.depths))
    if config.depth is None:
        return [f"model.depth: {family.name} needs one of {valid}."]
    closest = min(family.depths, key=lambda depth: abs(depth - (config.depth or 0)))
    return [
        f"model.depth: {family.name} has no depth {config.depth} "
        f"(did you mean {closest}? valid: {valid})."
    ]


def _module(config: ModelConfig) -> ModuleType:
    if problems := check(config):
        raise UserError(" ".join(problems))
    return importlib.import_module(f"harness.models.{FAMILIES[config.family].module}")


def roles(config: ModelConfig) -> dict[str, str]:
    """The names of the modules that play a part in protection: `classifier` and `first_conv`."""
    module = _module(config)
    return {"classifier": module.CLASSIFIER, "first_conv": module.FIRST_CONV}


def build(config: ModelConfig, num_classes: int, in_channels: int = 3, *, seed: int) -> nn.Module:
    """A model on the CPU in fp32, whose initial weights are a pure function of `seed`.

    The default generator of the CPU is seeded for the build and put back, because constructors
    (torch's own and timm's) draw from it; generators of other devices are not touched.
    """
    import torch

    from harness.train import rng

    module = _module(config)
    state = torch.get_rng_state()
    torch.default_generator.manual_seed(rng.derive(seed, "init"))
    try:
        model: nn.Module = module.build(
            depth=config.depth, width=config.width, num_classes=num_classes, in_channels=in_channels
        )
    finally:
        torch.set_rng_state(state)
    return model
