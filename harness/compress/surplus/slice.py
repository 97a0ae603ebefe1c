"""The small model is a slice of wider models that train with it: NetAug (Cai et al. 2022).

The tensor code is in `harness/compress/slice_graph.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from harness.compress.surplus.base import Build, GraphForm, register_form
from harness.models.family import Family
from harness.schema import WIDEST, StageSurplus, SurplusConfig, TrialConfig

if TYPE_CHECKING:
    from torch import nn


class Slice(GraphForm):
    """See the module."""

    name = "slice"

    def suits_family(self, family: Family) -> bool:
        """Return whether wider models of the family contain the small one."""
        return family.nested_widths

    def misfits(self, trial: TrialConfig) -> Iterator[str]:
        """Refuse synchronised batch norm, and widths that are not above the small model's."""
        yield from super().misfits(trial)
        if trial.recipe.sync_bn:
            yield "recipe.sync_bn: surplus slice needs batch norm per rank: set it to false"
        widths = trial.surplus.widths
        if not widths or min(widths) <= 1.0 or len(set(widths)) < len(widths):
            yield (
                f"surplus.widths: {list(widths)} must be different numbers above 1, such as "
                "[1.5, 2]: each is the width of a wider network, as a multiple of the small one's"
            )
        elif trial.model.width * max(widths) > WIDEST:
            times = f"{max(widths):g} times width {trial.model.width:g}"
            yield f"surplus.widths: {times} is more than {WIDEST:g}"

    def stage_surplus(self, surplus: SurplusConfig) -> StageSurplus:
        """Return the widths, sorted because their order has no effect, and the share of steps."""
        return StageSurplus(
            form=self.name, widths=tuple(sorted(surplus.widths)), share=surplus.share
        )

    def make_graph(self, surplus: StageSurplus, small: nn.Module, build: Build) -> nn.Module:
        """Return `slice_graph.Sliced` around the small model."""
        from harness.compress.slice_graph import Sliced

        return Sliced(small, [build(width) for width in surplus.widths], surplus.share)


register_form(Slice())
