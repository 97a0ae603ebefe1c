"""Optimizers, the learning rate of every step, and the loss."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F

from harness.schema import OptimizerConfig, RecipeConfig, ScheduleConfig


def learning_rate(
    optimizer: OptimizerConfig, schedule: ScheduleConfig, step: int, steps: int, per_epoch: int
) -> float:
    """Learning rate of `step` (0-based) of a stage of `steps`, a pure function of its arguments.

    Linear warm-up from 0 over `warmup_epochs`, whose first step already moves; then cosine to
    `final_share` of the peak (Loshchilov and Hutter 2017), steps down by `gamma`, or constant.
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
    return optimizer.lr


def make_optimizer(module: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """SGD or AdamW; norms and biases are decayed only when asked for.

    These are the parameters of one dimension, and those that a model of timm's names itself
    (position embeddings, class tokens).
    """
    named = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    said = getattr(module, "no_weight_decay", None)
    own = set(said()) if callable(said) else set()
    spared = {
        name for name, p in named if (p.ndim <= 1 or name in own) and not config.decay_norm_and_bias
    }
    decay = [p for name, p in named if name not in spared]
    rest = [p for name, p in named if name in spared]
    groups = [
        {"params": parameters, "weight_decay": weight_decay}
        for parameters, weight_decay in ((decay, config.weight_decay), (rest, 0.0))
        if parameters
    ]
    if config.name == "adamw":
        return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas)
    return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=config.nesterov)


def loss_function(
    recipe: RecipeConfig,
    logits: torch.Tensor | tuple[torch.Tensor, ...],
    targets: torch.Tensor,
) -> torch.Tensor:
    """Mean cross entropy in fp32; `targets` are labels int64 [N] or shares float [N, classes].

    Of a tuple of logits, which networks with additional parameters give, the sum.
    """
    parts = logits if isinstance(logits, tuple) else (logits,)
    smoothing = recipe.label_smoothing
    losses = [F.cross_entropy(p.float(), targets, label_smoothing=smoothing) for p in parts]
    return torch.stack(losses).sum() if len(losses) > 1 else losses[0]
