"""The refusal of a model family, which several methods and forms of surplus share."""

from __future__ import annotations

from collections.abc import Callable

from harness.models.family import FAMILIES, Family
from harness.models.registry import TIMM, find_family
from harness.schema import TrialConfig


def family_misfit(what: str, trial: TrialConfig, suits: Callable[[Family], bool]) -> str | None:
    """Return the sentence that `what` does not suit the trial's family; None where it does.

    It lists the families that `suits` accepts. A family that does not exist is not its concern.
    """
    name = trial.model.family
    family = find_family(name)
    if family is None or suits(family):
        return None
    note = " (a model of timm's)" if name.startswith(TIMM) else ""
    suited = ", ".join(other for other in FAMILIES.names() if suits(FAMILIES.get(other)))
    return f"{what} does not suit the family {name}{note}; it suits {suited}"
