"""The training graph of surplus `slice`: the small model is a slice of wider ones (NetAug).

As in Cai et al. 2022, all widths share one set of weights, those of the widest network; a narrower
network uses the first channels of each layer. Each step adds up the losses of the small network and
of one wider network, both with weight 1. In the last part of the training only the small network
trains. Unlike in NetAug, channels are not sorted again in each epoch. The small network starts from
the same weights as without surplus.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.func import functional_call

from harness import rng
from harness.errors import UserError
from harness.models.counts import count


def _cut(weight: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """Return a view of `weight` with the given shape: the first elements in every dimension."""
    return weight[tuple(slice(0, size) for size in shape)]


class Sliced(nn.Module):
    """A `surplus.Graph` whose only parameters are those of the widest network."""

    reestimate = True

    def __init__(self, small: nn.Module, wider: Sequence[nn.Module], share: float) -> None:
        super().__init__()
        wider = sorted(wider, key=lambda m: sum(p.numel() for p in m.parameters()))
        self.wide = wider[-1]
        self.share = share
        # In a tuple, the narrower networks are not submodules: their own parameters are not
        # trained, and their running statistics are not saved.
        self.narrow = (small, *wider[:-1])
        self.choice = len(self.narrow)  # number of the wider network that trains; 0 for none
        widest = dict(self.wide.named_parameters())
        for model in self.narrow:
            shapes = {name: p.shape for name, p in model.named_parameters()}
            if shapes.keys() != widest.keys() or any(
                len(shape) != widest[name].ndim
                or any(a > b for a, b in zip(shape, widest[name].shape, strict=True))
                for name, shape in shapes.items()
            ):
                raise UserError(
                    "surplus.form: slice needs wider networks with the same layers as the small "
                    "one and at least as many channels; these widths of the family differ in their "
                    "layers. Choose another family or form."
                )
        size = sum(p.numel() for p in small.parameters())
        if any(sum(p.numel() for p in model.parameters()) == size for model in wider):
            raise UserError(
                "surplus.widths: at one of them the model is not wider than the small one, because "
                "numbers of channels are rounded; choose greater ones."
            )
        with torch.no_grad():
            for name, p in small.named_parameters():
                _cut(widest[name], p.shape).copy_(p)

    def begin_step(self, seed: int, step: int, total_steps: int) -> None:
        """Draw the wider network of this step. In the last part of the training there is none."""
        drawn = rng.derive(seed, f"slice {step}") % len(self.narrow)
        self.choice = 1 + drawn if step < round(self.share * total_steps) else 0

    def active(self) -> str:
        """Return the number of the wider network that trains."""
        return str(self.choice)

    def macs(self, resolution: int) -> int:
        """Return the multiply-adds of the small network and of the wider one that trains."""
        models = [self.narrow[0]]
        if self.choice:
            models.append((*self.narrow, self.wide)[self.choice])
        return sum(count(model, resolution).macs_dense for model in models)

    def forward(self, x: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """Return the logits of the small network, and in training those of the step's wider one."""
        small = self._logits(self.narrow[0], x)
        if not self.training or self.choice == 0:
            return small
        if self.choice == len(self.narrow):
            return small, self.wide(x)
        return small, self._logits(self.narrow[self.choice], x)

    def _logits(self, model: nn.Module, x: torch.Tensor) -> torch.Tensor:
        if model.training != self.training:
            model.train(self.training)
        widest = dict(self.wide.named_parameters())
        weights = {name: _cut(widest[name], p.shape) for name, p in model.named_parameters()}
        logits: torch.Tensor = functional_call(model, weights, (x,))
        return logits

    @torch.no_grad()
    def deployed(self) -> nn.Module:
        """Return the small network, whose batch-norm statistics have to be estimated again."""
        widest = dict(self.wide.named_parameters())
        small = self.narrow[0]
        for name, p in small.named_parameters():
            p.copy_(_cut(widest[name], p.shape))
        return small
