"""Any other model of timm by its name, `family: timm:regnety_002`, at timm's own size."""

from __future__ import annotations

from typing import Any

import timm
import torch
from timm.models import get_pretrained_cfg
from torch import nn

from harness.errors import UserError


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
        """The model without pretrained weights, initialised from torch's default generator.

        Raises UserError where it does not take images of this resolution.
        """
        fixed = getattr(self.facts, "fixed_input_size", False)
        size: dict[str, Any] = {"img_size": resolution} if fixed else {}
        try:
            model: nn.Module = timm.create_model(
                self.name, num_classes=num_classes, in_chans=in_channels, **size
            ).eval()
            with torch.no_grad():  # the least size that it takes is written nowhere
                model(torch.zeros(1, in_channels, resolution, resolution))
        except (RuntimeError, AssertionError, ValueError, TypeError) as error:
            if "allocate memory" in str(error):
                raise
            raise UserError(
                f"model.family: timm's {self.name} does not take images of {resolution} pixels "
                f"({' '.join(str(error).split())}): set dataset.resolution, or choose another."
            ) from error
        return model.train()
