"""A sentence that several methods and forms of surplus refuse a trial with."""

from __future__ import annotations

from harness.models.registry import TIMM
from harness.schema import TrialConfig


def unsuited_family(what: str, trial: TrialConfig, families: tuple[str, ...]) -> str:
    """Return the sentence that `what` does not suit the trial's model family, but `families`."""
    family = trial.model.family
    note = " (a model of timm's)" if family.startswith(TIMM) else ""
    return f"{what} does not suit the family {family}{note}; it suits {', '.join(families)}"
