"""Linear branches beside each convolution, which fold into it before inference: RepVGG, DBB.

The tensor code is in `harness/compress/fuse_graph.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.compress.surplus.base import Build, GraphForm, register_form
from harness.models.family import Family
from harness.schema import StageSurplus, SurplusConfig

if TYPE_CHECKING:
    from torch import nn


class Fuse(GraphForm):
    """See the module."""

    name = "fuse"

    def suits_family(self, family: Family) -> bool:
        """Return whether models of the family have convolutions that can have branches."""
        return family.conv_norm_pairs

    def stage_surplus(self, surplus: SurplusConfig) -> StageSurplus:
        """Return the key that sets the channels between the two convolutions of a branch."""
        return StageSurplus(form=self.name, expand=surplus.expand)

    def make_graph(self, surplus: StageSurplus, small: nn.Module, build: Build) -> nn.Module:
        """Return `fuse_graph.Fused` around the small model."""
        from harness.compress.fuse_graph import Fused

        return Fused(small, surplus.expand)


register_form(Fuse())
