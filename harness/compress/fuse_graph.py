"""The training graph of surplus `fuse`: linear branches parallel to each convolution.

Before inference the branches are folded into the convolution, which is then exactly equal to their
sum. The branches are:

- the convolution itself;
- a 1x1 convolution, and the identity if input and output have the same shape, as in RepVGG (Ding et
  al. 2021);
- a 1x1 convolution followed by a kxk convolution, as in DBB (Ding et al. 2021). It has `expand`
  times the input's channels between the two. There is no norm between them, as in ExpandNets (Guo
  et al. 2020), so that folding is also exact at the borders of the image.

Every branch ends in its own batch norm, and the sum of the branches goes into the small model's
batch norm. The folded bias is subtracted from the running mean of that norm. So the deployed model
has exactly the parameters of the small model.
"""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.nn import functional as F

from harness.errors import UserError
from harness.models.counts import count
from harness.models.pointwise import replace_strided_pointwise

Norm = nn.modules.batchnorm._BatchNorm


class Branches(nn.Module):
    """A convolution [O, I, k, k] with parallel branches. It replaces the convolution in a model."""

    def __init__(self, conv: nn.Conv2d, expand: int) -> None:
        super().__init__()
        inputs, outputs = conv.in_channels, conv.out_channels
        stride, (kernel, _) = conv.stride[0], conv.kernel_size
        self.base = conv
        self.point = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
        self.squeeze = nn.Conv2d(inputs, expand * inputs, 1, bias=False)
        self.spread = nn.Conv2d(expand * inputs, outputs, kernel, stride, kernel // 2, bias=False)
        norms = {name: nn.BatchNorm2d(outputs) for name in ("base", "point", "chain")}
        if inputs == outputs and stride == 1:
            norms["identity"] = nn.BatchNorm2d(outputs)
        self.norms = nn.ModuleDict(norms)
        replace_strided_pointwise(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the sum of the branches, which has the shape of the convolution's output."""
        out = self.norms["base"](self.base(x)) + self.norms["point"](self.point(x))
        out = out + self.norms["chain"](self.spread(self.squeeze(x)))
        return out + self.norms["identity"](x) if "identity" in self.norms else out

    def folded(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return kernel [O, I, k, k] and bias [O] of the equivalent convolution in eval mode."""
        base = self.base.weight.double()
        half = base.shape[2] // 2
        kernels = {
            "base": base,
            "point": F.pad(self.point.weight.double(), (half,) * 4),
            "chain": torch.einsum(
                "oekl,ei->oikl",
                self.spread.weight.double(),
                self.squeeze.weight.double()[..., 0, 0],
            ),
        }
        if "identity" in self.norms:
            eye = torch.zeros_like(base)
            eye[:, :, half, half] = torch.eye(len(base), dtype=base.dtype, device=base.device)
            kernels["identity"] = eye
        kernel, bias = torch.zeros_like(base), torch.zeros_like(base[:, 0, 0, 0])
        for name, part in kernels.items():
            norm = self.norms[name]
            assert isinstance(norm, Norm)
            assert norm.running_mean is not None
            assert norm.running_var is not None
            scale = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
            kernel += part * scale[:, None, None, None]
            bias += norm.bias.double() - norm.running_mean.double() * scale
        return kernel, bias


def _eligible(conv: nn.Module) -> bool:
    """Return whether a layer is a dense kxk convolution without bias, k odd and at least 3.

    Its padding must keep the image's size, apart from the stride.
    """
    return (
        isinstance(conv, nn.Conv2d)
        and conv.groups == 1
        and conv.bias is None
        and conv.dilation == (1, 1)
        and conv.stride[0] == conv.stride[1]
        and conv.kernel_size[0] == conv.kernel_size[1] >= 3
        and conv.padding == (conv.kernel_size[0] // 2,) * 2
        and conv.kernel_size[0] % 2 == 1
    )


class _Layers(torch.fx.Tracer):
    """A tracer that does not look into convolutions and norms.

    fx itself treats only torch's own classes so, and not the project's subclasses of them.
    """

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        layer = isinstance(m, nn.Conv2d | Norm)
        return layer or super().is_leaf_module(m, module_qualified_name)


def pairs(model: nn.Module) -> dict[str, str]:
    """Return the convolutions that can have branches, each with the batch norm after it, by name.

    The output of such a convolution goes to that batch norm and nowhere else.
    """
    graph = _Layers().trace(model)
    modules = dict(model.named_modules())
    norms = {}
    for node in graph.nodes:
        users = list(node.users)
        if node.op != "call_module" or not _eligible(modules[node.target]) or len(users) != 1:
            continue
        if users[0].op == "call_module" and isinstance(modules[users[0].target], Norm):
            norms[str(node.target)] = str(users[0].target)
    return norms


class Fused(nn.Module):
    """A `surplus.Graph`: the small model with branches parallel to its convolutions."""

    reestimate = False

    def __init__(self, small: nn.Module, expand: int) -> None:
        super().__init__()
        self.pairs = pairs(small)
        if not self.pairs:
            raise UserError(
                "surplus.form: fuse finds no convolution of 3x3 or more with a batch norm after it "
                "in this model; choose another family or form."
            )
        self.template = (copy.deepcopy(small),)  # a tuple, so that it is not a submodule
        self.graph = small
        for name in self.pairs:
            parent, _, last = name.rpartition(".")
            branches = Branches(small.get_submodule(name), expand)  # type: ignore[arg-type]
            setattr(small.get_submodule(parent), last, branches.to(next(small.parameters()).device))

    def begin_step(self, seed: int, step: int, total_steps: int) -> None:
        """Do nothing: all steps are alike."""

    def active(self) -> str:
        """Return the same name for every step, because all parts train at every step."""
        return "all"

    def macs(self, resolution: int) -> int:
        """Return the multiply-adds of the graph with all branches."""
        return count(self.graph, resolution).macs_dense

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits [N, classes]."""
        logits: torch.Tensor = self.graph(x)
        return logits

    @torch.no_grad()
    def deployed(self) -> nn.Module:
        """Return the small model with the branches folded in.

        In eval mode it returns what the training graph returns.
        """
        small = copy.deepcopy(self.template[0])
        state = self.graph.state_dict()
        folded = {name: state[name].clone() for name in small.state_dict() if name in state}
        for conv, norm in self.pairs.items():
            branches = self.graph.get_submodule(conv)
            assert isinstance(branches, Branches)
            kernel, bias = branches.folded()
            folded[f"{conv}.weight"] = kernel.float()
            mean = folded[f"{norm}.running_mean"]
            folded[f"{norm}.running_mean"] = (mean.double() - bias).to(mean.dtype)
        small.load_state_dict(folded)
        return small
