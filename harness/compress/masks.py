"""Masks: which weights may go, which go by their scores, and how they stay gone.

A mask is a bool tensor of its weight's shape, True where the weight stays. Masks are a plain
dictionary by parameter name; nothing hooks into the model. Whoever steps the optimizer applies them
after each step, to the weights, their fp32 copies and the momentum (`harness/train/engine.py`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from harness.errors import UserError, nearest

Masks = dict[str, torch.Tensor]


def _weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """Weights of convolutions and linear layers that ask for a gradient, no others."""
    return {
        f"{name}.weight": module.weight
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear) and module.weight.requires_grad
    }


def protected(model: nn.Module, protect: Sequence[str], roles: Mapping[str, str]) -> list[str]:
    """Names of the weights that `protect` withholds from pruning, in the model's order.

    `protect` holds roles (`roles` maps each to a module's name, see `registry.roles`) and names of
    parameters.

    Raises:
        UserError: a name that is neither.
    """
    parameters = dict(model.named_parameters())
    withheld = set()
    for name in protect:
        if name in roles:
            withheld.add(f"{roles[name]}.weight")
        elif name in parameters:
            withheld.add(name)
        else:
            raise UserError(
                f"compress.protect: '{name}' is neither a role ({', '.join(sorted(roles))}) nor a "
                f"parameter of the model{nearest(name, [*roles, *parameters])}."
            )
    return [name for name in _weights(model) if name in withheld]


def prunable(model: nn.Module, protect: Sequence[str], roles: Mapping[str, str]) -> list[str]:
    """Names of the weights that pruning may remove, in the model's order.

    Raises:
        UserError: an unknown name in `protect`, or nothing left to prune.
    """
    withheld = set(protected(model, protect, roles))
    names = [name for name in _weights(model) if name not in withheld]
    if not names:
        raise UserError(
            "compress.protect: it withholds every convolution and linear layer of the model, so "
            "there is nothing to prune; protect less."
        )
    return names


def lowest(
    scores: Mapping[str, torch.Tensor],
    sparsity: float,
    scope: str = "global",
    previous: Masks | None = None,
) -> Masks:
    """Masks, on the CPU, without the weights of the lowest scores (0 or above, by name).

    Exactly round(sparsity * n) of the n weights are pruned, of all together (`global`) or of each
    (`layer`), those of `previous` among them; of equal scores the one that comes first in
    (name, position) goes first. Computed on the CPU, so that ranks and devices agree.

    Raises:
        ValueError: `previous` covers other weights, or prunes more than `sparsity` does.
    """
    if previous is not None and list(previous) != list(scores):
        raise ValueError("the previous masks cover other weights than those to prune")
    if scope == "layer":
        return {
            name: _lowest({name: score}, sparsity, previous)[name] for name, score in scores.items()
        }
    return _lowest(scores, sparsity, previous)


def _lowest(scores: Mapping[str, torch.Tensor], sparsity: float, previous: Masks | None) -> Masks:
    flat = torch.cat([score.detach().float().cpu().flatten() for score in scores.values()])
    number = round(sparsity * flat.numel())
    if previous is not None:
        gone = torch.cat([~previous[name].cpu().flatten() for name in scores])
        if int(gone.sum()) > number:
            raise ValueError(f"the previous masks already prune more than {sparsity:.6g}")
        flat[gone] = -1.0  # below every score: what is pruned stays pruned
    keep = torch.ones_like(flat, dtype=torch.bool)
    if number:
        threshold = flat.kthvalue(number).values
        keep[flat < threshold] = False
        ties = (flat == threshold).nonzero().flatten()
        keep[ties[: number - int((~keep).sum())]] = False
    parts = keep.split([score.numel() for score in scores.values()])
    return {
        name: part.reshape(score.shape).clone()
        for (name, score), part in zip(scores.items(), parts, strict=True)
    }


def magnitude_masks(
    model: nn.Module,
    sparsity: float,
    names: Sequence[str],
    previous: Masks | None = None,
    scope: str = "global",
) -> Masks:
    """`lowest` of |w| over the weights `names`."""
    parameters = dict(model.named_parameters())
    scores = {name: parameters[name].detach().float().abs() for name in names}
    return lowest(scores, sparsity, scope, previous)


@torch.no_grad()
def apply_masks(model: nn.Module, masks: Mapping[str, torch.Tensor]) -> None:
    """Set the pruned weights of a model to zero, in place, whatever they hold (also NaN)."""
    parameters = dict(model.named_parameters())
    for name, mask in masks.items():
        parameters[name].masked_fill_(~mask.to(parameters[name].device), 0.0)


def achieved(masks: Mapping[str, torch.Tensor]) -> float:
    """The share of the weights under the masks that is pruned."""
    kept = sum(int(mask.count_nonzero()) for mask in masks.values())
    return 1.0 - kept / sum(mask.numel() for mask in masks.values())


def pack(masks: Mapping[str, torch.Tensor]) -> dict[str, dict[str, Any]]:
    """Masks as `{name: {"shape": [..], "bits": uint8 tensor}}`, an eighth of their size."""
    return {
        name: {
            "shape": list(mask.shape),
            "bits": torch.from_numpy(np.packbits(mask.cpu().numpy().ravel())),
        }
        for name, mask in masks.items()
    }


def unpack(packed: Mapping[str, Mapping[str, Any]], model: nn.Module) -> Masks:
    """The masks that were packed, on the CPU.

    Raises:
        UserError: a mask for no parameter of the model, of another shape, or with other bits.
    """
    parameters = dict(model.named_parameters())
    masks: Masks = {}
    for name, mask in packed.items():
        shape = tuple(mask["shape"])
        if name not in parameters:
            raise UserError(
                f"the saved mask '{name}' belongs to no parameter of the model"
                f"{nearest(name, parameters)}; it was saved from another model."
            )
        if shape != tuple(parameters[name].shape):
            raise UserError(
                f"the saved mask '{name}' has shape {list(shape)} and the model's parameter "
                f"{list(parameters[name].shape)}; it was saved from another model."
            )
        length = parameters[name].numel()
        bits = mask["bits"].numpy()
        if bits.dtype != np.uint8 or bits.shape != (-(-length // 8),):
            raise UserError(f"the saved mask '{name}' is damaged: its bits do not fill its shape.")
        kept = np.unpackbits(bits, count=length).astype(bool)
        masks[name] = torch.from_numpy(kept).reshape(shape)
    return masks


def mask_hash(masks: Mapping[str, torch.Tensor]) -> str:
    """16 hex digits of the SHA-256 over names, shapes and bits, whatever the order of the names."""
    digest = hashlib.sha256()
    for name, mask in sorted(pack(masks).items()):
        digest.update(f"{name} {mask['shape']}\n".encode())
        digest.update(mask["bits"].numpy().tobytes())
    return digest.hexdigest()[:16]
