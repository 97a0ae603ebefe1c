"""The model families that a grid can name. A family is one file here and one row below.

Torch-free until `build` or `roles` is called: a plan checks its models without it.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import UserError, nearest
from harness.schema import ModelConfig

if TYPE_CHECKING:
    from torch import nn

TIMM = "timm:"  # before a name of timm's, for the models that have no row here


@dataclass(frozen=True)
class Family:
    """`module` is the file's name; `depths` are the valid ones, None where depth means nothing.

    Resolutions (pixels) below `min_resolution` leave nothing for the last stride to halve; a
    patched model takes multiples of `patch`, and learns positions, so that `build` is told the
    resolution. Widths are multiples of 1 / `steps`, where the family has such steps, or just 1.
    """

    name: str
    module: str
    depths: tuple[int, ...] | None = None
    min_resolution: int = 1
    patch: int | None = None
    steps: int | None = None
    fixed_width: bool = False


_ROWS = (
    Family("cifar_resnet", "cifar_resnet", depths=(8, 20, 32, 56)),
    Family("wide_resnet", "wide_resnet", depths=(10, 16, 22, 28, 40)),
    Family("cifar_stem_resnet", "cifar_stem_resnet", depths=(18, 34, 50), min_resolution=8),
    Family("cifar_mobilenetv2", "cifar_mobilenetv2", min_resolution=8),
    Family("cifar_shufflenetv2", "cifar_shufflenetv2", min_resolution=8),
    Family("cifar_vit", "cifar_vit", depths=(2, 4, 6, 7), min_resolution=8, patch=4, steps=4),
    Family("resnet", "resnet", depths=(18, 34, 50, 101, 152), min_resolution=17),
    Family("mobilenetv2", "mobilenetv2", min_resolution=17),
    Family("mobilenetv3_large", "mobilenetv3_large", min_resolution=17),
    Family("mobilenetv3_small", "mobilenetv3_small", min_resolution=17),
    Family("shufflenetv2", "shufflenetv2", min_resolution=17),
    Family("efficientnet", "efficientnet", (16, 23, 26, 32, 39, 45, 55), min_resolution=17),
    Family("convnext", "convnext", depths=(12, 14, 18, 36), min_resolution=32),
    Family("vit", "vit", depths=(6, 12, 24), min_resolution=32, patch=16, steps=6),
)

FAMILIES: dict[str, Family] = {row.name: row for row in _ROWS}


@functools.cache
def timm_names() -> frozenset[str]:
    """Names of timm's models, read from its source without importing it; empty without timm."""
    found = importlib.util.find_spec("timm")
    if found is None or found.origin is None:
        return frozenset()
    sources = (Path(found.origin).parent / "models").glob("*.py")
    registered = re.compile(r"^@register_model\n(?:@.*\n)*def (\w+)", re.MULTILINE)
    return frozenset(name for path in sources for name in registered.findall(path.read_text()))


def _family(name: str) -> Family | None:
    if name.startswith(TIMM):
        return Family(name, "from_timm", fixed_width=True)
    return FAMILIES.get(name)


@functools.cache
def takes_one_size(name: str) -> bool:
    """Whether a family learns positions for one size of images.

    Only timm knows it of its models: it is imported, which takes seconds; False where it cannot.
    """
    if not name.startswith(TIMM):
        return name in FAMILIES and FAMILIES[name].patch is not None
    try:
        from timm.models import get_pretrained_cfg
    except ImportError:
        return False
    facts = get_pretrained_cfg(name.removeprefix(TIMM))
    return bool(getattr(facts, "fixed_input_size", False))


def check(config: ModelConfig, resolution: int | None = None) -> list[str]:
    """Sentences about everything that is wrong with a model's config, for images of `resolution`.

    Without a resolution, what it would forbid is not checked.
    """
    family = _family(config.family)
    if family is None:
        return [
            f"model.family: no family '{config.family}'"
            f"{nearest(config.family, FAMILIES)}; a model of timm's goes by {TIMM}NAME."
        ]
    if config.family.startswith(TIMM):
        names, name = timm_names(), config.family.removeprefix(TIMM)
        if names and name not in names:
            return [f"model.family: timm has no model '{name}'{nearest(name, names)}."]
    found = [_wrong_depth(config, family), _wrong_width(config, family)]
    if resolution is not None:
        found.append(_wrong_resolution(resolution, family))
    return [sentence for sentence in found if sentence]


def _wrong_depth(config: ModelConfig, family: Family) -> str | None:
    if family.depths is None:
        if config.depth is None:
            return None
        return f"model.depth: {family.name} has no depth to choose; leave it out."
    if config.depth in family.depths:
        return None
    valid = ", ".join(map(str, family.depths))
    if config.depth is None:
        return f"model.depth: {family.name} needs one of {valid}."
    closest = min(family.depths, key=lambda depth: abs(depth - (config.depth or 0)))
    return (
        f"model.depth: {family.name} has no depth {config.depth} "
        f"(did you mean {closest}? valid: {valid})."
    )


def _wrong_width(config: ModelConfig, family: Family) -> str | None:
    if family.fixed_width and config.width != 1.0:
        return f"model.width: {family.name} comes at width 1 only; families with a row have widths."
    if family.steps is None:
        return None
    steps = max(1, round(config.width * family.steps))
    if abs(config.width * family.steps - steps) < 0.02:  # thirds and sixths are written rounded
        return None
    return (
        f"model.width: {family.name} has {family.steps} attention heads at width 1, so its width "
        f"is a multiple of 1/{family.steps} (did you mean {steps / family.steps:.4g}?)."
    )


def _wrong_resolution(resolution: int, family: Family) -> str | None:
    if resolution < family.min_resolution:
        fit = [
            row.name
            for row in _ROWS
            if row.min_resolution <= resolution and resolution % (row.patch or 1) == 0
        ]
        return (
            f"model.family: {family.name} takes images from {family.min_resolution} pixels up and "
            f"the data set has {resolution}; {', '.join(fit)} take it."
        )
    if family.patch and resolution % family.patch:
        return (
            f"model.family: {family.name} cuts images into patches of {family.patch} pixels, of "
            f"which {resolution} is no multiple."
        )
    return None


def _module(config: ModelConfig) -> Any:
    if problems := check(config):
        raise UserError(" ".join(problems))
    family = _family(config.family)
    assert family is not None
    module = importlib.import_module(f"harness.models.{family.module}")
    return module.Named(config.family.removeprefix(TIMM)) if family.fixed_width else module


def roles(config: ModelConfig) -> dict[str, str]:
    """The names of the modules that play a part in protection: `classifier` and `first_conv`."""
    module = _module(config)
    if config.family.startswith(TIMM):
        found: dict[str, str] = module.roles
        return found
    return {"classifier": module.CLASSIFIER, "first_conv": module.FIRST_CONV}


def build(
    config: ModelConfig,
    num_classes: int,
    in_channels: int = 3,
    *,
    seed: int,
    resolution: int | None = None,
) -> nn.Module:
    """A model on the CPU in fp32, whose initial weights are a pure function of `seed`.

    `resolution` (pixels) is needed by models that learn a position for each patch. The default
    generator of the CPU is seeded for the build and put back, because constructors (torch's own
    and timm's) draw from it; generators of other devices are not touched.

    Raises:
        UserError: see `check`.
    """
    import torch

    from harness import rng
    from harness.models.pointwise import mend

    module = _module(config)
    family = _family(config.family)
    assert family is not None
    sized: dict[str, Any] = {}
    if family.patch or family.fixed_width:
        if resolution is None:
            raise ValueError(f"{family.name} learns positions: build needs the resolution")
        sized = {"resolution": resolution}
    state = torch.get_rng_state()
    torch.default_generator.manual_seed(rng.derive(seed, "init"))
    try:
        model: nn.Module = module.build(
            depth=config.depth,
            width=config.width,
            num_classes=num_classes,
            in_channels=in_channels,
            **sized,
        )
    finally:
        torch.set_rng_state(state)
    return mend(model)
