"""The small model as a slice of wider ones that learn beside it: NetAug (Cai et al. 2022).

All widths share one set of weights, those of the widest; a narrower network takes the first
channels. A step adds the loss of the small network and of one wider one (weight 1 each, as there);
for the last part of the training the small network is alone. Unlike NetAug, channels are not
sorted anew each epoch. The small network starts from the very weights of its plain twin.
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
    return weight[tuple(slice(0, size) for size in shape)]


class Sliced(nn.Module):
    """See `surplus.Graph`. Only the widest network's parameters are parameters of this module."""

    reestimate = True

    def __init__(self, small: nn.Module, wider: Sequence[nn.Module], share: float) -> None:
        super().__init__()
        wider = sorted(wider, key=lambda m: sum(p.numel() for p in m.parameters()))
        self.wide = wider[-1]
        self.share = share
        # not registered: their own parameters are never trained, and in training batch norm asks
        # for no statistics but the batch's
        self.narrow = (small, *wider[:-1])
        self.choice = len(self.narrow)  # of a wider network, the widest last; 0: none
        own = dict(self.wide.named_parameters())
        for model in self.narrow:
            shapes = {name: p.shape for name, p in model.named_parameters()}
            if shapes.keys() != own.keys() or any(
                len(shape) != own[name].ndim
                or any(a > b for a, b in zip(shape, own[name].shape, strict=True))
                for name, shape in shapes.items()
            ):
                raise UserError(
                    "surplus.form: slice needs wider networks with the small one's layers and at "
                    "least its channels; these widths of the family differ in their layers."
                )
        size = sum(p.numel() for p in small.parameters())
        if any(sum(p.numel() for p in model.parameters()) == size for model in wider):
            raise UserError(
                "surplus.widths: at one of them this model, whose channels are whole numbers, is "
                "no wider than without; choose greater ones."
            )
        with torch.no_grad():
            for name, p in small.named_parameters():
                _cut(own[name], p.shape).copy_(p)

    def begin_step(self, seed: int, step: int, total_steps: int) -> None:
        """Draw the wider network of this step, or none in the last part."""
        drawn = rng.derive(seed, f"slice {step}") % len(self.narrow)
        self.choice = 1 + drawn if step < round(self.share * total_steps) else 0

    def active(self) -> str:
        """See `surplus.Graph`."""
        return str(self.choice)

    def macs(self, resolution: int) -> int:
        """See `surplus.Graph`."""
        models = [self.narrow[0]]
        if self.choice:
            models.append((*self.narrow, self.wide)[self.choice])
        return sum(count(model, resolution).macs_dense for model in models)

    def forward(self, x: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """Logits of the small network; in training also those of the wider one of this step."""
        small = self._logits(self.narrow[0], x)
        if not self.training or self.choice == 0:
            return small
        if self.choice == len(self.narrow):
            return small, self.wide(x)
        return small, self._logits(self.narrow[self.choice], x)

    def _logits(self, model: nn.Module, x: torch.Tensor) -> torch.Tensor:
        if model.training != self.training:
            model.train(self.training)
        own = dict(self.wide.named_parameters())
        weights = {name: _cut(own[name], p.shape) for name, p in model.named_parameters()}
        logits: torch.Tensor = functional_call(model, weights, (x,))
        return logits

    @torch.no_grad()
    def deployed(self) -> nn.Module:
        """The small network; its batch-norm statistics are those of nobody yet."""
        own = dict(self.wide.named_parameters())
        small = self.narrow[0]
        for name, p in small.named_parameters():
            p.copy_(_cut(own[name], p.shape))
        return small
