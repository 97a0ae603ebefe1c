"""N:M sparsity (Mishra et al. 2021, arXiv 2104.08378): of every 4 weights the smallest are removed.

A group is four consecutive input channels of one output channel at one position of the kernel, the
layout that sparse tensor cores take. Sparsity 0.5 is 2:4. Layers whose number of input channels is
not a multiple of 4 (the first convolution, depthwise ones) stay dense.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from harness.compress.methods.base import Method, Request, register_method
from harness.errors import UserError
from harness.schema import TrialConfig

if TYPE_CHECKING:
    from torch import nn

    from harness.compress.masks import Masks

M = 4


class NM(Method):
    """N:M sparsity with M = 4: 1:4, 2:4 or 3:4."""

    name = "nm"

    def misfits(self, trial: TrialConfig, levels: Sequence[float]) -> Iterator[str]:
        """Refuse levels that are not 1/4, 2/4 or 3/4."""
        for level in levels:
            if (level * M) % 1.0:
                yield (
                    "compress.sparsity: method nm takes sparsities 0.25, 0.5 and 0.75, not "
                    f"{level:g} (for 2:4 set sparsity=0.5 and pruning=one_shot)"
                )

    def suited(self, model: nn.Module, names: Sequence[str], resolution: int) -> list[str]:
        """Return the weights whose input channels come in groups of 4."""
        fitting = [name for name in names if model.get_parameter(name).shape[1] % M == 0]
        if not fitting:
            raise UserError(
                "compress.method: nm finds no layer whose input channels are a multiple of 4; "
                "choose a greater width, or another method."
            )
        return fitting

    def compress(self, model: nn.Module, request: Request) -> Masks:
        """Return masks with 4 * sparsity zeros in every group; of equal weights the first is 0."""
        import torch

        zeros = round(M * request.sparsity)
        masks = {}
        for name in request.names:
            score = model.get_parameter(name).detach().float().cpu().abs()
            if request.previous is not None:
                score[~request.previous[name].cpu()] = -1.0  # pruned weights stay pruned
            channels_last = score.movedim(1, -1)  # so that 4 consecutive values are one group
            order = channels_last.reshape(-1, M).argsort(dim=1, stable=True)
            keep = torch.ones_like(order, dtype=torch.bool).scatter_(1, order[:, :zeros], False)
            masks[name] = keep.reshape(channels_last.shape).movedim(-1, 1).contiguous()
        return masks


register_method(NM())
