"""The states of stages and trials, and how a trial's state follows from those of its stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

STATES = ("done", "diverged", "running", "queued", "disputed", "failed", "damaged", "waiting")


@dataclass(frozen=True)
class StageState:
    """One of `STATES`, why where that needs a word, and the job that has it."""

    name: str
    why: str = ""
    result: dict[str, Any] | None = None
    job: str = ""


NEVER_BEGUN = StageState("waiting")


def trial_state(path: Sequence[str], states: Mapping[str, StageState]) -> StageState:
    """State of a trial from those of its stages, dense first: its last stage decides."""
    last = states[path[-1]]
    if last.name not in ("waiting", "queued"):
        return last
    for stage in path[:-1]:
        if states[stage].name in ("running", "damaged", "disputed"):
            return states[stage]
    return last
