"""What a form of surplus is, and the registry of all forms."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Protocol

from harness.models import registry
from harness.models.family import Family
from harness.plugins import Registry
from harness.schema import (
    Frozen,
    Magnitude,
    NoOptions,
    PruneConfig,
    RecipeConfig,
    StageSurplus,
    SurplusConfig,
    TrialConfig,
)

if TYPE_CHECKING:
    from torch import nn

Build = Callable[[float], "nn.Module"]
"""Function that returns a model as the small one, but `times` as wide, from the same seed."""


@dataclass(frozen=True)
class Step:
    """One stage of a trial's path, as a form of surplus can change it."""

    magnitude: Magnitude
    recipe: RecipeConfig
    prune: PruneConfig | None = None
    surplus: StageSurplus | None = None
    rewind_epoch: int | None = None
    """Number of epochs after which the step keeps its weights, for levels that rewind to them."""


class Form:
    """A form of surplus; `surplus.form` of a grid names it. This base class changes nothing."""

    name: ClassVar[str]
    control_of: ClassVar[str | None] = None
    """The form whose control this one is: a similar path without additional parameters."""
    options_model: ClassVar[type[Frozen]] = NoOptions
    """The keys that `surplus.options` may have with this form."""

    def misfits(self, trial: TrialConfig) -> Iterable[str]:
        """Return what is wrong with a trial of this form.

        Each sentence begins with the key of the wrong value: "surplus.weak: ...". The check runs
        when a grid is planned, without torch.
        """
        return ()

    def change_path(self, trial: TrialConfig, path: Sequence[Step]) -> Sequence[Step]:
        """Return the steps of a trial; `path` are those that it would have without this form.

        The first step is the dense stage. A step for each level of pruning follows.
        """
        return path


class PathForm(Form):
    """A form that trains the large network and then prunes it, as a path of ordinary stages.

    A subclass implements `change_path`, which sets the magnitude of every step.
    """

    def misfits(self, trial: TrialConfig) -> Iterable[str]:
        """Refuse a trial without levels, and keys that would set the magnitudes too."""
        compress = trial.compress
        if compress.sparsity == 0.0 or compress.pruning == "gradual":
            yield (
                f"surplus.form: {self.name} is a path of levels: give a sparsity above 0, with "
                "pruning one_shot or iterative"
            )
        if compress.magnitude_schedule != "constant":
            yield (
                f"compress.magnitude_schedule: surplus {self.name} decides itself which stages "
                "train at the weak magnitude: set it to constant"
            )
        if compress.dense_magnitude is not None:
            yield (
                f"compress.dense_magnitude: surplus {self.name} decides itself the magnitude of "
                "the dense stage: set compress.dense_magnitude=null"
            )


class GraphForm(Form, ABC):
    """A form that surrounds a dense small model by a training graph.

    A subclass implements `make_graph`. It also implements `stage_surplus` if keys other than
    `surplus.options` change its numbers.
    """

    def misfits(self, trial: TrialConfig) -> Iterable[str]:
        """Refuse a pruned trial and families that the form does not suit."""
        if trial.compress.sparsity > 0.0 or trial.compress.dense_long is not None:
            yield (
                f"surplus.form: {self.name} surrounds a dense model: set sparsity 0 without "
                "dense_long, or choose a form for pruned ones"
            )
        if misfit := registry.unsuited(
            f"surplus {self.name}", trial.model.family, self.suits_family
        ):
            yield f"surplus.form: {misfit}"

    def suits_family(self, family: Family) -> bool:
        """Return whether the form suits models of that family, as far as the fields of it show."""
        return True

    def change_path(self, trial: TrialConfig, path: Sequence[Step]) -> Sequence[Step]:
        """Return the path with the surplus in its dense stage.

        The stage keeps no early weights for rewinding, because no level of pruning follows.
        """
        dense = replace(path[0], surplus=self.stage_surplus(trial.surplus), rewind_epoch=None)
        return dense, *path[1:]

    def stage_surplus(self, surplus: SurplusConfig) -> StageSurplus:
        """Return the form's part of a stage's identity: every key that changes its numbers."""
        return StageSurplus(form=self.name, options=surplus.options)

    @abstractmethod
    def make_graph(self, surplus: StageSurplus, small: nn.Module, build: Build) -> nn.Module:
        """Return the training graph around `small`, a module with the methods of `Graph`.

        The function may change `small`. New weights are drawn from torch's default generator, which
        is seeded before the call.

        Raises:
            UserError: the form does not suit the model.
        """


class Graph(Protocol):
    """The module that the engine trains.

    In training mode it returns logits [N, classes], or a tuple of logits whose losses are added up.
    Every parameter must get a gradient in every step, because DDP waits for all gradients.
    """

    reestimate: bool
    """Whether the deployed model's batch-norm statistics have to be estimated again."""

    def begin_step(self, seed: int, step: int, total_steps: int) -> None:
        """Prepare an optimizer step. All changes and draws must depend on the arguments only."""

    def active(self) -> str:
        """Return a name for the parts that train at this step.

        Steps with the same name must have equal `macs`.
        """

    def macs(self, resolution: int) -> int:
        """Return the multiply-adds of one image's forward pass in training, at this step."""

    def deployed(self) -> nn.Module:
        """Return the small model with its current weights, on the same device."""


FORMS: Registry[Form] = Registry("form of surplus")


def register_form(form: Form) -> None:
    """Make a form available to grids by its name. Raises UserError if the name is taken."""
    FORMS.register(form.name, form)


class NoSurplus(Form):
    """No additional parameters: the small network trains as it is deployed."""

    name = "none"


register_form(NoSurplus())


def make_graph(surplus: StageSurplus, small: nn.Module, build: Build) -> nn.Module:
    """Return the training graph of a stage around its model `small`; see `GraphForm.make_graph`."""
    form = FORMS.get(surplus.form)
    assert isinstance(form, GraphForm)
    return form.make_graph(surplus, small, build)
