"""Augmentation per sample on any device: policies, plans, ops, executors.

from harness.augment import apply, parse_policy

plan = parse_policy("randaug(n=2, m=0.3)").draw(seed=0, epoch=0, indices=ids)
images_u8 = apply(images_u8, plan)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from harness.augment.ops import Kind, Op, register_op
from harness.augment.plan import Plan
from harness.augment.policy import Policy, parse_policy, with_magnitude
from harness.augment.spaces import find_space, load_space

if TYPE_CHECKING:
    from harness.augment.batch_transform import BatchTransform, eval_batch, train_batch
    from harness.augment.executors import apply, choose_executor

__all__ = [
    "BatchTransform",
    "Kind",
    "Op",
    "Plan",
    "Policy",
    "apply",
    "choose_executor",
    "eval_batch",
    "find_space",
    "load_space",
    "parse_policy",
    "register_op",
    "train_batch",
    "with_magnitude",
]

_NEEDS_TORCH = {
    "BatchTransform": "batch_transform",
    "apply": "executors",
    "choose_executor": "executors",
    "eval_batch": "batch_transform",
    "train_batch": "batch_transform",
}


def __getattr__(name: str) -> Any:
    """Return a function that needs torch, imported at its first use: planning needs no torch."""
    if name not in _NEEDS_TORCH:
        raise AttributeError(f"module {__name__} has no attribute '{name}'")
    module = importlib.import_module(f"harness.augment.{_NEEDS_TORCH[name]}")
    return getattr(module, name)
