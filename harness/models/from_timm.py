"""Any model of timm by its name, for example `family: timm:regnety_002`, at timm's own size."""

from __future__ import annotations

import functools
import importlib.util
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import UserError
from harness.models.family import Family

if TYPE_CHECKING:
    from torch import nn

TIMM = "timm:"  # the prefix of a family that is a model of timm


@functools.cache
def timm_names() -> frozenset[str]:
    """Return the names of timm's models, read from its source files; empty without timm.

    timm is not imported, because the import takes seconds and a plan must work without torch.
    """
    spec = importlib.util.find_spec("timm")
    if spec is None or spec.origin is None:
        return frozenset()
    sources = (Path(spec.origin).parent / "models").glob("*.py")
    registered = re.compile(r"^@register_model\n(?:@.*\n)*def (\w+)", re.MULTILINE)
    return frozenset(name for path in sources for name in registered.findall(path.read_text()))


def timm_family(name: str) -> Family:
    """Return timm's model `name` as a family. `timm_roles` returns the modules of its roles."""
    build = functools.partial(_build, name)
    return Family(TIMM + name, build, classifier=None, first_conv=None, fixed_width=True)


def has_fixed_input_size(name: str) -> bool:
    """Return whether timm's model takes images of one size only; False without timm.

    Imports timm.
    """
    try:
        from timm.models import get_pretrained_cfg
    except ImportError:
        return False
    return bool(getattr(get_pretrained_cfg(name), "fixed_input_size", False))


def timm_roles(name: str) -> dict[str, tuple[str, ...]]:
    """Return the names of the classifiers and of the first convolutions that timm records.

    Most models have one of each. Distilled models have two classifiers. A role without a module is
    left out. Imports timm.
    """
    from timm.models import get_pretrained_cfg

    config = get_pretrained_cfg(name)
    roles = {role: getattr(config, role, None) or () for role in ("classifier", "first_conv")}
    return {
        role: (modules,) if isinstance(modules, str) else tuple(modules)
        for role, modules in roles.items()
        if modules
    }


def _build(
    name: str, depth: None, width: float, num_classes: int, in_channels: int, resolution: int
) -> nn.Module:
    """Return the model without pretrained weights, dropout and stochastic depth.

    Raises UserError if it does not take images of this resolution.
    """
    import timm
    import torch

    from harness.models.conversions import switch_off_dropout

    size: dict[str, Any] = {"img_size": resolution} if has_fixed_input_size(name) else {}
    try:
        model: nn.Module = timm.create_model(
            name, num_classes=num_classes, in_chans=in_channels, **size
        ).eval()
        with torch.no_grad():  # timm does not record the smallest size that a model takes
            model(torch.zeros(1, in_channels, resolution, resolution))
    except Exception as error:  # models raise errors of many kinds, such as a division by zero
        if isinstance(error, MemoryError | ImportError) or "memory" in str(error):
            raise
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(
            f"model.family: timm's {name} does not take images of {resolution} pixels "
            f"({reason}): set dataset.resolution, or choose another model."
        ) from error
    switch_off_dropout(model)
    return model.train()
