"""Train the dense network at the trial's magnitude, prune it, and retrain at a weak one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from harness.compress.surplus.base import PathForm, Step, register_form
from harness.schema import TrialConfig


class PruneAway(PathForm):
    """See the module."""

    name = "prune_away"

    def change_path(self, trial: TrialConfig, path: Sequence[Step]) -> Sequence[Step]:
        """Return the path with every level at the weak magnitude."""
        dense, *levels = path
        return dense, *(replace(level, magnitude=trial.surplus.weak) for level in levels)


register_form(PruneAway())
