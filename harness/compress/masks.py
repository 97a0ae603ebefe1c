"""Pruning masks: select prunable weights, prune those of the lowest scores, and keep them zero.

A mask is a bool tensor of its weight's shape, True where the weight is kept. Masks are a plain
dictionary by parameter name; nothing hooks into the model. The engine applies them after each
optimizer step to the weights, their fp32 copies and the momentum (`harness/train/engine.py`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from harness.errors import UserError, nearest
from harness.models.counts import LAYERS

Masks = dict[str, torch.Tensor]


def prunable(
    model: nn.Module, protect: Sequence[str], roles: Mapping[str, Sequence[str]]
) -> list[str]:
    """Return the names of the weights that pruning may remove, in the model's order.

    These are the weights of convolutions and linear layers that require a gradient, except those
    that `protect` names. `protect` has names of parameters and of roles. `roles` maps a role to the
    names of its modules (see `registry.roles`), and a role protects all weights in its modules.

    Raises:
        UserError: an unknown name in `protect`, a role without weights, or no weight to prune.
    """
    # compared by `id`, because a weight that several layers share has only one name
    layers = {id(module.weight) for module in model.modules() if isinstance(module, LAYERS)}
    parameters = dict(model.named_parameters())
    weights = [name for name, p in parameters.items() if id(p) in layers and p.requires_grad]
    excluded: set[str] = set()
    for name in protect:
        modules = tuple(f"{module}." for module in roles.get(name, ()))
        names = [weight for weight in weights if modules and weight.startswith(modules)]
        if not names and name not in parameters:
            others = sorted(role for role in roles if role != name)
            raise UserError(
                f"compress.protect: '{name}' is neither a role ({', '.join(others)}) nor a "
                f"parameter of the model{nearest(name, [*others, *parameters])}."
            )
        excluded.update(names or [name])
    names = [name for name in weights if name not in excluded]
    if not names:
        raise UserError(
            "compress.protect: every convolution and linear layer of the model is protected, so "
            "there is nothing to prune; protect fewer."
        )
    return names


def lowest(
    scores: Mapping[str, torch.Tensor],
    sparsity: float,
    scope: str = "global",
    previous: Masks | None = None,
) -> Masks:
    """Return masks that prune the weights of the lowest scores.

    `scores` has a tensor for each weight, of its shape and with values of 0 or more. Exactly
    round(sparsity * n) of n weights are pruned: of all layers together with the scope `global`, of
    each layer with the scope `layer`. Weights that `previous` prunes stay pruned and are included
    in that number. Of equal scores, those of earlier names and positions are pruned first. The
    masks are computed on the CPU and stay there, so that they are equal on all ranks and devices.

    Raises:
        ValueError: `previous` covers other weights, or prunes more than `sparsity`.
    """
    if previous is not None and list(previous) != list(scores):
        raise ValueError("the previous masks cover other weights than the scores")
    if scope == "layer":
        return {
            name: _lowest({name: score}, sparsity, previous)[name] for name, score in scores.items()
        }
    return _lowest(scores, sparsity, previous)


def _lowest(scores: Mapping[str, torch.Tensor], sparsity: float, previous: Masks | None) -> Masks:
    """Return masks that prune the lowest of all scores together; see `lowest`."""
    flat = torch.cat([score.detach().float().cpu().flatten() for score in scores.values()])
    pruned_count = round(sparsity * flat.numel())
    if previous is not None:
        pruned = torch.cat([~previous[name].cpu().flatten() for name in scores])
        if int(pruned.sum()) > pruned_count:
            raise ValueError(f"the previous masks already prune more than {sparsity:.6g}")
        flat[pruned] = -1.0  # below every score
    keep = torch.ones_like(flat, dtype=torch.bool)
    if pruned_count:
        threshold = flat.kthvalue(pruned_count).values
        keep[flat < threshold] = False
        ties = (flat == threshold).nonzero().flatten()  # only the first of them are pruned
        keep[ties[: pruned_count - int((~keep).sum())]] = False
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
    """Return masks that prune the smallest |w| of the weights `names`; see `lowest`."""
    scores = {name: model.get_parameter(name).detach().float().abs() for name in names}
    return lowest(scores, sparsity, scope, previous)


@torch.no_grad()
def apply_masks(model: nn.Module, masks: Mapping[str, torch.Tensor]) -> None:
    """Set the pruned weights of a model to zero, in place, also where they are NaN."""
    parameters = dict(model.named_parameters())
    for name, mask in masks.items():
        parameters[name].masked_fill_(~mask.to(parameters[name].device), 0.0)


def achieved(masks: Mapping[str, torch.Tensor]) -> float:
    """Return the share of pruned weights among all weights that have a mask."""
    kept = sum(int(mask.count_nonzero()) for mask in masks.values())
    return 1.0 - kept / sum(mask.numel() for mask in masks.values())


def pack(masks: Mapping[str, torch.Tensor]) -> dict[str, dict[str, Any]]:
    """Return the masks with 8 weights a byte, `{name: {"shape": [..], "bits": uint8 tensor}}`."""
    return {
        name: {
            "shape": list(mask.shape),
            "bits": torch.from_numpy(np.packbits(mask.cpu().numpy().ravel())),
        }
        for name, mask in masks.items()
    }


def unpack(packed: Mapping[str, Mapping[str, Any]], model: nn.Module) -> Masks:
    """Return the masks that `pack` packed, on the CPU.

    Raises:
        UserError: a mask does not belong to the model, has another shape, or its bits are damaged.
    """
    parameters = dict(model.named_parameters())
    masks: Masks = {}
    for name, mask in packed.items():
        shape = tuple(mask["shape"])
        if name not in parameters or shape != parameters[name].shape:
            raise UserError(
                f"the saved mask '{name}' of shape {list(shape)} does not fit any parameter of the "
                "model; it was saved from another model."
            )
        length = parameters[name].numel()
        bits = mask["bits"].numpy()
        if bits.dtype != np.uint8 or bits.shape != (-(-length // 8),):
            raise UserError(f"the saved mask '{name}' is damaged: its bits do not fill its shape.")
        kept = np.unpackbits(bits, count=length).astype(bool)
        masks[name] = torch.from_numpy(kept).reshape(shape)
    return masks


def mask_hash(masks: Mapping[str, torch.Tensor]) -> str:
    """Return 16 hex digits of the SHA-256 over names, shapes and bits, sorted by name."""
    digest = hashlib.sha256()
    for name, mask in sorted(pack(masks).items()):
        digest.update(f"{name} {mask['shape']}\n".encode())
        digest.update(mask["bits"].numpy().tobytes())
    return digest.hexdigest()[:16]
