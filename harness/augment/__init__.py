"""Augmentation per sample on any device: policies, plans, ops, executors.

from harness.augment import apply, parse_policy

plan = parse_policy("randaug(n=2, m=0.3)").draw(seed=0, epoch=0, indices=ids)
images_u8 = apply(images_u8, plan)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.augment.ops import Kind, Op, register_op
from harness.augment.plan import Plan
from harness.augment.policy import Policy, parse_policy
from harness.lazy import lazy_exports

if TYPE_CHECKING:
    from harness.augment.executors import apply

__all__ = ["Kind", "Op", "Plan", "Policy", "apply", "parse_policy", "register_op"]
__getattr__ = lazy_exports(__name__, {"executors": ("apply",)})
