"""Make the training graph of quantisation: fold batch norms, then quantise weights and inputs.

The layers of a model and the batch norm behind each are found in a forward pass of an example, and
not by symbolic tracing, which fails on models that look at shapes (vision transformers of timm).

Folding is exact in eval mode. The folded network has no batch statistics, so quantised training
uses the parent's final ones. A batch norm that does not directly follow a layer (as in
pre-activation networks) stays in float.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from timm.layers import BatchNormAct2d
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrize
from torch.overrides import TorchFunctionMode

from harness.compress.quantise_ranges import BITS, ActivationRange, Statistics, WeightRange
from harness.errors import UserError
from harness.models.counts import LAYERS, WEIGHT_ARGUMENTS

FOLDABLE = (nn.BatchNorm1d, nn.BatchNorm2d, BatchNormAct2d)
"""Classes of batch norms that can be folded; subclasses may compute something else."""
WEIGHT = "layer.parametrizations.weight.original"
"""Name of the trained weight in a `QuantisedLayer`."""


@dataclass(frozen=True)
class Quantisation:
    """Bits of weights and activations; those of the first and last layer; how ranges are found."""

    weights: int
    activations: int = 8
    first_last: int = 8
    ranges: Literal["learned", "average"] = "learned"

    def __post_init__(self) -> None:
        """Raise UserError for bits that are not offered."""
        for name in ("weights", "activations", "first_last"):
            if getattr(self, name) not in BITS:
                valid = ", ".join(map(str, BITS))
                raise UserError(
                    f"compress.quantize.{name}: {getattr(self, name)} bits are not offered; choose "
                    f"one of {valid}."
                )


@dataclass
class Call:
    """What an example's forward pass shows of a layer: see `Survey`."""

    positions: int  # of one image, at which the weight is applied
    outputs: list[torch.Tensor] = field(default_factory=list)


@dataclass
class Survey:
    """The layers that can be quantised, and the weights that cannot.

    `layers` has the names of layers in the order of their first call, with the number of positions
    of one image at which each weight is applied. `norms` has the batch norm that takes a layer's
    output and is the only one to take it. `unquantised` has the reason for every other weight with
    more than one dimension, by name.
    """

    layers: dict[str, int]
    norms: dict[str, str]
    unquantised: dict[str, str]


class _Calls(TorchFunctionMode):
    """Records which function takes which weight, and which take the output of a layer."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.calls: dict[str, Call] = {}
        self.applied: set[int] = set()  # ids of weights that a function took as they are stored
        self.uses: dict[int, int] = {}  # of a layer's output, by the id of the tensor
        self.norm_inputs: dict[int, list[int | None]] = {}
        """Ids of the inputs of a norm, by the id of its running mean; None: no layer's output."""
        self.handles = [
            module.register_forward_hook(functools.partial(self._called, name))
            for name, module in model.named_modules()
            if isinstance(module, LAYERS)
        ]

    def _called(self, name: str, layer: Any, inputs: Any, output: torch.Tensor) -> None:
        call = self.calls.setdefault(name, Call(0))
        call.positions += output.numel() // (len(output) * layer.weight.shape[0])
        call.outputs.append(output)  # also keeps the tensor, so that its id stays its own
        self.uses[id(output)] = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in WEIGHT_ARGUMENTS:
            position, keyword = WEIGHT_ARGUMENTS[func]
            self.applied.add(id(args[position] if len(args) > position else kwargs[keyword]))
        if func is F.batch_norm:
            mean = args[1] if len(args) > 1 else kwargs["running_mean"]
            # Other tensors may be freed, and a later output of a layer may then have their id.
            source = id(args[0]) if id(args[0]) in self.uses else None
            self.norm_inputs.setdefault(id(mean), []).append(source)
        if getattr(func, "__name__", "") not in ("__get__", "size", "dim"):
            for value in (*args, *kwargs.values()):
                for tensor in value if isinstance(value, list | tuple) else (value,):
                    if id(tensor) in self.uses:
                        self.uses[id(tensor)] += 1
        return func(*args, **kwargs)


@torch.no_grad()
def survey(model: nn.Module, example: torch.Tensor) -> Survey:
    """Return what can be quantised, from a forward pass of `example`, images float [N, C, H, W]."""
    calls = _Calls(model)
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with calls:
            model(example)
    finally:
        for handle in calls.handles:
            handle.remove()
        for module, mode in modes.items():
            module.training = mode
    modules = dict(model.named_modules())
    owners: dict[int, int] = {}
    for module in modules.values():
        weight = getattr(module, "weight", None)
        owners[id(weight)] = owners.get(id(weight), 0) + 1
    layers, unquantised = {}, {}
    for name, module in modules.items():
        if not isinstance(module, LAYERS):
            continue
        if name not in calls.calls:
            unquantised[f"{name}.weight"] = "the network does not call its layer"
        elif id(module.weight) not in calls.applied:
            unquantised[f"{name}.weight"] = "its layer computes another weight from it"
        elif owners[id(module.weight)] > 1:
            unquantised[f"{name}.weight"] = "several layers share it"
    for name, call in calls.calls.items():
        if f"{name}.weight" not in unquantised:
            layers[name] = call.positions
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1 and name.removesuffix(".weight") not in layers:
            reason = "it belongs to neither a two-dimensional convolution nor a linear layer"
            unquantised.setdefault(name, reason)
    return Survey(layers, _followers(modules, calls, layers), unquantised)


def _followers(
    modules: Mapping[str, nn.Module], calls: _Calls, layers: Iterable[str]
) -> dict[str, str]:
    """Return the foldable batch norm after each layer that has one."""
    takers = {
        inputs[0]: name
        for name, module in modules.items()
        if type(module) in FOLDABLE and module.running_mean is not None
        if len(inputs := calls.norm_inputs.get(id(module.running_mean), [])) == 1
        if inputs[0] is not None
    }
    followers = {}
    for name in layers:
        outputs = calls.calls[name].outputs
        if len(outputs) == 1 and calls.uses[id(outputs[0])] == 1 and id(outputs[0]) in takers:
            followers[name] = takers[id(outputs[0])]
    return followers


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, module)


@torch.no_grad()
def fold(model: nn.Module, norms: Mapping[str, str]) -> None:
    """Fold each batch norm into the layer before it, in place; `norms` is that of a `Survey`.

    In eval mode the model returns what it did. The activation that a norm of timm includes stays in
    the norm's place. A weight of zero stays zero.
    """
    for name, norm_name in norms.items():
        layer, norm = model.get_submodule(name), model.get_submodule(norm_name)
        assert isinstance(layer, LAYERS)
        assert isinstance(norm, FOLDABLE)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        factor = 1.0 / torch.sqrt(norm.running_var.double() + norm.eps)
        if norm.affine:
            factor = factor * norm.weight.double()
        bias = -norm.running_mean.double()
        if layer.bias is not None:
            bias = bias + layer.bias.double()
        bias = bias * factor
        if norm.affine:
            bias = bias + norm.bias.double()
        rows = factor.view(-1, *(1,) * (layer.weight.ndim - 1))
        layer.weight.copy_(layer.weight.double() * rows)
        layer.bias = nn.Parameter(bias.to(layer.weight.dtype))
        rest = nn.Sequential(norm.drop, norm.act) if isinstance(norm, BatchNormAct2d) else None
        _replace(model, norm_name, rest or nn.Identity())


class QuantisedLayer(nn.Module):
    """A convolution or a linear layer with a quantised weight and a quantised input.

    `positions` are those of one image at which the weight is applied. The bias stays in float.
    """

    def __init__(
        self, layer: nn.Module, positions: int, weights: int, activations: int, is_learned: bool
    ) -> None:
        super().__init__()
        assert isinstance(layer, LAYERS)
        self.positions = positions
        self.input = ActivationRange(activations, is_learned).to(layer.weight.device)
        quantiser = WeightRange(layer.weight, weights, is_learned)
        parametrize.register_parametrization(layer, "weight", quantiser)
        self.layer = layer

    @property
    def weight(self) -> torch.Tensor:
        """The quantised weight, for models that read it."""
        weight: torch.Tensor = self.layer.weight
        return weight

    @property
    def weight_range(self) -> WeightRange:
        """The quantiser of the weight."""
        module = self.get_submodule("layer.parametrizations.weight.0")
        assert isinstance(module, WeightRange)
        return module

    @property
    def original(self) -> torch.Tensor:
        """The weight in float, which the optimizer changes."""
        return self.get_parameter(WEIGHT)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the output of the layer for the quantised input."""
        out: torch.Tensor = self.layer(self.input(x))
        return out


def quantised_layers(model: nn.Module) -> dict[str, QuantisedLayer]:
    """Return the quantised layers of a model by the name of the layer before quantisation."""
    return {n: m for n, m in model.named_modules() if isinstance(m, QuantisedLayer)}


def quantise(model: nn.Module, example: torch.Tensor, config: Quantisation) -> nn.Module:
    """Return a copy of the model with folded batch norms and quantised layers.

    The ranges of the activations still have to be calibrated. The first and the last layer that
    `example` passes have `first_last` bits, weights and input.

    Raises:
        UserError: there is no layer that can be quantised.
    """
    model = copy.deepcopy(model)
    found = survey(model, example)
    if not found.layers:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in found.unquantised.items())
        raise UserError(
            "compress.quantize: no layer of this model can be quantised. Choose another family, or "
            f"compress.quantize=null ({reasons or 'it has no convolution and no linear layer'})."
        )
    fold(model, found.norms)
    ends = (next(iter(found.layers)), next(reversed(found.layers)))
    for name, positions in found.layers.items():
        weights, activations = config.weights, config.activations
        if name in ends:
            weights = activations = config.first_last
        is_learned = config.ranges == "learned"
        layer = model.get_submodule(name)
        _replace(model, name, QuantisedLayer(layer, positions, weights, activations, is_learned))
    return model


@torch.no_grad()
def calibrate(model: nn.Module, batches: Iterable[torch.Tensor]) -> None:
    """Set the ranges of all activations from batches of normalised images, in place.

    Weights are quantised and activations are not. A range is the average over batches of the
    smallest and the greatest value, and a learned scale starts from the mean absolute value. Every
    rank needs the same batches in the same order. The images should be those of training, without
    augmentation. The modes of all modules are restored.

    Raises:
        ValueError: `batches` is empty, or a layer was not called.
    """
    ranges = {name: layer.input for name, layer in quantised_layers(model).items()}
    modes = {module: module.training for module in model.modules()}
    model.eval()
    for activation in ranges.values():
        activation.statistics = Statistics()
    for images in batches:
        model(images)
    for module, mode in modes.items():
        module.training = mode
    for name, activation in ranges.items():
        if activation.statistics is None or not activation.statistics.batches:
            raise ValueError(f"calibration passed no image through the layer {name}")
        activation.take_statistics()


def training_masks(masks: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return masks of a model's weights with the names that the weights have when quantised."""
    return {f"{name.removesuffix('weight')}{WEIGHT}": mask for name, mask in masks.items()}
