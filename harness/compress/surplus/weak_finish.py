"""The control of prune_away: only the network that is already small trains at the strong magnitude.

The dense network trains at the weak magnitude. In the last level, the first half of the epochs is
at the trial's magnitude and the second half at the weak one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from harness.compress.surplus.base import PathForm, Step, register_form
from harness.schema import TrialConfig


class WeakFinish(PathForm):
    """See the module."""

    name = "weak_finish"
    control_of = "prune_away"

    def misfits(self, trial: TrialConfig) -> Iterator[str]:
        """Refuse a last level that cannot be halved."""
        yield from super().misfits(trial)
        if (trial.compress.level_epochs or trial.recipe.epochs) < 2:
            yield "compress.level_epochs: weak_finish halves the last level: give 2 or more"
        if trial.compress.rewind != "learning_rate":
            yield "compress.rewind: weak_finish works with learning_rate only"

    def change_path(self, trial: TrialConfig, path: Sequence[Step]) -> Sequence[Step]:
        """Return the path with a weak dense stage and the last level in two halves."""
        dense, *levels, last = path
        assert last.prune is not None
        weak, epochs = trial.surplus.weak, last.recipe.epochs
        strong_half = last.recipe.model_copy(update={"epochs": epochs - epochs // 2})
        weak_half = last.recipe.model_copy(update={"epochs": epochs // 2})
        removes_nothing = last.prune.model_copy(update={"sparsity": 0.0})
        return (
            replace(dense, magnitude=weak),
            *levels,
            replace(last, recipe=strong_half),
            replace(last, recipe=weak_half, magnitude=weak, prune=removes_nothing),
        )


register_form(WeakFinish())
