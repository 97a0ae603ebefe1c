"""The states of stages and trials, and how a trial's state follows from those of its stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

StateName = Literal[
    "done", "diverged", "running", "queued", "disputed", "failed", "damaged", "waiting", "ruled out"
]
STATES: Final[tuple[StateName, ...]] = get_args(StateName)
RULED_OUT: Final = "ruled out"
"""State of a trial without a result that the sweep's rule (`settle`) left out."""
FINISHED: Final[frozenset[StateName]] = frozenset({"done", "diverged"})
"""States of a stage whose training has ended with a result."""
ENDED: Final[frozenset[StateName]] = FINISHED | {"failed"}
"""States that last until the user retries the stage."""
TO_TRAIN: Final[frozenset[StateName]] = frozenset({"waiting", "damaged", "running"})
"""States of a stage that a launch gives to workers. A running stage may lose its worker."""
UNDER_WAY: Final[frozenset[StateName]] = frozenset({"running", "queued", "disputed"})
"""States of a stage that a worker trains or that a job in SLURM's queue holds."""


@dataclass(frozen=True)
class StageState:
    """State of a stage or a trial."""

    name: StateName
    why: str = ""  # the reason, where the name does not say it
    result: dict[str, Any] | None = None
    job: str = ""  # id of the job that trains or holds the stage


def trial_state(
    path: Sequence[str], states: Mapping[str, StageState], is_ruled_out: bool = False
) -> StageState:
    """Return the state of a trial from those of its stages, dense stage first.

    The trial has the state of its last stage. If that is waiting or queued, an earlier stage that
    is running, damaged or disputed gives the state instead. A trial that the rule of `settle` has
    ruled out is "ruled out", unless it has a result or is under way for another launch.
    """
    state = _state_of_path(path, states)
    if is_ruled_out and state.name not in FINISHED | UNDER_WAY:
        return StageState(RULED_OUT)
    return state


def _state_of_path(path: Sequence[str], states: Mapping[str, StageState]) -> StageState:
    last = states[path[-1]]
    if last.name not in ("waiting", "queued"):
        return last
    for stage in path[:-1]:
        if states[stage].name in ("running", "damaged", "disputed"):
            return states[stage]
    return last
