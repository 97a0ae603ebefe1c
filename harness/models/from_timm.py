"""Any other model of timm by its name, `family: timm:regnety_002`, at timm's own size."""

from __future__ import annotations

from typing import Any

import timm
from timm.models import get_pretrained_cfg
from torch import nn


class Named:
    """What a family's module offers, for one of timm's names.

    A role that more than one module plays, as in distilled models with two classifiers, is absent.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.facts = get_pretrained_cfg(name)

    @property
    def roles(self) -> dict[str, str]:
        """Names of the classifier and of the first convolution, where timm records one."""
        found = {role: getattr(self.facts, role, None) for role in ("classifier", "first_conv")}
        return {role: module for role, module in found.items() if isinstance(module, str)}

    def build(
        self, depth: None, width: float, num_classes: int, in_channels: int, resolution: int
    ) -> nn.Module:
        """The model without pretrained weights, initialised from torch's default generator."""
        fixed = getattr(self.facts, "fixed_input_size", False)
        size: dict[str, Any] = {"img_size": resolution} if fixed else {}
        model: nn.Module = timm.create_model(
            self.name, num_classes=num_classes, in_chans=in_channels, **size
        )
        return model
