"""Training: the loop over batches, stages, engines, checkpoints, evaluation and teachers."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.train.distributed import World, connected
    from harness.train.gang import Member, Outcome
    from harness.train.loop import train_gang
    from harness.train.step_timing import measure_steps_in_new_process
    from harness.train.teacher import Teacher, load_teacher

_MODULES = {
    "Member": "gang",
    "Outcome": "gang",
    "Teacher": "teacher",
    "World": "distributed",
    "connected": "distributed",
    "load_teacher": "teacher",
    "measure_steps_in_new_process": "step_timing",
    "train_gang": "loop",
}
__all__ = [
    "Member",
    "Outcome",
    "Teacher",
    "World",
    "connected",
    "load_teacher",
    "measure_steps_in_new_process",
    "train_gang",
]


def __getattr__(name: str) -> Any:
    """Import the module of an exported name at its first use: importing torch takes seconds."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
