"""What a compression method is, and the registry of all methods."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from harness.fields import Frozen
from harness.plugins import Registry
from harness.schema import NoOptions, TrialConfig

if TYPE_CHECKING:
    import torch
    from torch import nn

    from harness.compress.masks import Masks


@dataclass(frozen=True)
class Request:
    """The weights that a stage prunes, and the sparsity that it prunes them to.

    `sparsity` is the share of the weights `names` that is zero afterwards. For a method that
    removes channels, it is the share of the dense model's width that is removed. `previous` has the
    masks of the level before, or is None. `build(times)` returns the stage's model as initialised
    from its seed, with `times` its width.
    """

    sparsity: float
    names: Sequence[str]  # names of the weights that may be pruned, in the model's order
    previous: Masks | None = None
    scope: str = "global"  # prunes all layers together; "layer" prunes the same share of each
    seed: int = 0
    resolution: int = 0  # pixels a side of the images
    build: Callable[[float], nn.Module] | None = None
    options: Frozen = field(default_factory=NoOptions)  # an instance of `options_model`


class Method(ABC):
    """A way to make a network smaller; `compress.method` of a grid names it.

    A subclass sets `name`, implements `compress`, and overrides what differs from these defaults.
    """

    name: ClassVar[str]
    options_model: ClassVar[type[Frozen]] = NoOptions
    """The keys that `compress.options` may have with this method."""
    works_gradually: ClassVar[bool] = False
    """Whether `compress.pruning=gradual` may call it many times while a stage trains."""
    suits_every_model: ClassVar[bool] = False
    """Whether it can prune any convolution and linear layer. A launch then does not have to build
    a model to check that the method suits it."""
    tried_when_planned: ClassVar[bool] = False
    """Whether a launch has to run `compress` to check that the method suits a model."""
    protects: ClassVar[tuple[str, ...]] = ()
    """Roles of layers that it never prunes, in addition to those of `compress.protect`."""

    def misfits(self, trial: TrialConfig, levels: Sequence[float]) -> Iterable[str]:
        """Return what is wrong with a trial that this method prunes to the sparsities `levels`.

        Each sentence begins with the key of the wrong value: "compress.scope: ...". The check runs
        when a grid is planned, without torch. `levels` is empty with gradual pruning.
        """
        return ()

    def suited(self, model: nn.Module, names: Sequence[str], resolution: int) -> list[str]:
        """Return those of the weights `names` that this method can prune; the rest stay dense.

        Raises:
            UserError: it can prune none of them.
        """
        return list(names)

    @abstractmethod
    def compress(self, model: nn.Module, request: Request) -> Masks | None:
        """Return a mask for each of `request.names`, or remove channels in place and return None.

        A mask is a bool tensor of its weight's shape, True where the weight is kept. The result
        must depend only on model and request, because every rank and every resumed training has to
        get the same result.
        """

    def fit(self, model: nn.Module, state: Mapping[str, torch.Tensor]) -> None:  # noqa: B027
        """Change the layers of a freshly built model to the shapes of `state`.

        `state` has the weights of a compressed model, which the caller loads afterwards. Only
        methods that remove channels override this.
        """


METHODS: Registry[Method] = Registry("method")


def register_method(method: Method) -> None:
    """Make a method available to grids by its name. Raises UserError if the name is taken."""
    METHODS.register(method.name, method)
