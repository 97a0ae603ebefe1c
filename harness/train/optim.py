"""Optimizers, the learning rate of every step, and the loss."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F

from harness.schema import OptimizerConfig, RecipeConfig, ScheduleConfig
from harness.sweep.trunk import cooldown_epochs


def learning_rate(
    optimizer: OptimizerConfig, schedule: ScheduleConfig, step: int, steps: int, per_epoch: int
) -> float:
    """Return the learning rate of `step` (0-based) of a stage of `steps`.

    Linear warm-up from 0 over `warmup_epochs`, whose first step has a rate above 0; then cosine to
    `final_share` of the peak (Loshchilov and Hutter 2017), steps down by `gamma`, constant, or a
    trunk: constant until the cool-down, and in it 1 - sqrt(share of the cool-down that has passed)
    of the peak (Haegele et al. 2024, equation 1).
    """
    warmup = round(schedule.warmup_epochs * per_epoch)
    if step < warmup:
        return optimizer.lr * (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    if schedule.name == "cosine":
        low = schedule.final_share
        return optimizer.lr * (low + (1 - low) * 0.5 * (1 + math.cos(math.pi * progress)))
    if schedule.name == "step":
        passed = sum(step >= milestone * steps for milestone in schedule.milestones)
        return optimizer.lr * schedule.gamma**passed
    if schedule.name == "trunk" and schedule.cooldown is not None:
        length = round(cooldown_epochs(schedule.cooldown, steps / per_epoch) * per_epoch)
        passed = step - (steps - length)
        if passed > 0:
            return optimizer.lr * (1 - math.sqrt(passed / length))
    return optimizer.lr


def make_optimizer(module: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """Return SGD or AdamW for the module's parameters.

    Without `decay_norm_and_bias` there is no weight decay on parameters of one dimension, and on
    those that a timm model lists in `no_weight_decay` (position embeddings, class tokens).
    """
    named = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    list_undecayed = getattr(module, "no_weight_decay", None)
    listed = set(list_undecayed()) if callable(list_undecayed) else set()
    decays = {
        name: config.decay_norm_and_bias or (p.ndim > 1 and name not in listed) for name, p in named
    }
    groups = [
        {"params": parameters, "weight_decay": weight_decay}
        for is_decayed, weight_decay in ((True, config.weight_decay), (False, 0.0))
        if (parameters := [p for name, p in named if decays[name] == is_decayed])
    ]
    if config.name == "adamw":
        return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas)
    return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=config.nesterov)


def loss_function(
    recipe: RecipeConfig,
    logits: torch.Tensor | tuple[torch.Tensor, ...],
    targets: torch.Tensor,
) -> torch.Tensor:
    """Return the mean cross entropy in fp32.

    targets: labels int64 [N] or shares float [N, classes]. logits: [N, classes], or a tuple of
    them from a network with additional parameters, whose losses are added.
    """
    parts = logits if isinstance(logits, tuple) else (logits,)
    smoothing = recipe.label_smoothing
    losses = [F.cross_entropy(p.float(), targets, label_smoothing=smoothing) for p in parts]
    return torch.stack(losses).sum() if len(losses) > 1 else losses[0]
