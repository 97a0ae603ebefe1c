"""Look up, check and build the model families that a grid can name.

A plan checks its models without torch and NumPy: only `build` imports them. timm is imported by the
functions that say so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from harness.errors import UserError, nearest
from harness.models import families  # noqa: F401 — registers the shipped families
from harness.models.family import FAMILIES, Family
from harness.models.from_timm import (
    TIMM,
    has_fixed_input_size,
    timm_family,
    timm_names,
    timm_roles,
)
from harness.schema import ModelConfig

if TYPE_CHECKING:
    from torch import nn


def find_family(name: str) -> Family | None:
    """Return the family `name`, or None if it does not exist.

    It is a shipped family, one of a plug-in file, or a model of timm. For a name of timm's the
    function does not check that timm has such a model.
    """
    if name.startswith(TIMM):
        return timm_family(name.removeprefix(TIMM))
    return FAMILIES.get(name) if name in FAMILIES.names() else None


def takes_one_size(name: str) -> bool:
    """Return whether models of a family are built for images of one size.

    For a model of timm this imports timm, which takes seconds.
    """
    if name.startswith(TIMM):
        return has_fixed_input_size(name.removeprefix(TIMM))
    family = find_family(name)
    return family is not None and family.patch is not None


def check(config: ModelConfig, resolution: int | None = None) -> list[str]:
    """Return a sentence for each mistake in a model's config.

    `resolution` is the side of the images in pixels; None leaves the resolution unchecked.
    """
    family = find_family(config.family)
    if family is None:
        return [
            f"model.family: no family '{config.family}'"
            f"{nearest(config.family, FAMILIES.names())}; a model of timm is named {TIMM}NAME."
        ]
    if config.family.startswith(TIMM):
        names, name = timm_names(), config.family.removeprefix(TIMM)
        if names and name not in names:  # without timm, `names` is empty
            return [f"model.family: timm has no model '{name}'{nearest(name, names)}."]
    problems = [_wrong_depth(config, family), _wrong_width(config, family)]
    if resolution is not None:
        problems.append(_wrong_resolution(resolution, family))
    return [problem for problem in problems if problem]


def _wrong_depth(config: ModelConfig, family: Family) -> str | None:
    if family.depths is None:
        if config.depth is None:
            return None
        return f"model.depth: {family.name} has no depth to choose; set model.depth=null."
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
        return (
            f"model.width: {family.name} has width 1 only; set it to 1, or choose a family that "
            "has widths."
        )
    if family.width_steps is None:
        return None
    steps = max(1, round(config.width * family.width_steps))
    if abs(config.width * family.width_steps - steps) < 0.02:  # 1/3 may be written as 0.333
        return None
    return (
        f"model.width: {family.name} has {family.width_steps} attention heads at width 1, so its "
        f"width is a multiple of 1/{family.width_steps} (did you mean "
        f"{steps / family.width_steps:.4g}?)."
    )


def _wrong_resolution(resolution: int, family: Family) -> str | None:
    if resolution < family.min_resolution:
        fitting = [
            other.name
            for other in map(FAMILIES.get, FAMILIES.names())
            if other.min_resolution <= resolution and resolution % (other.patch or 1) == 0
        ]
        return (
            f"model.family: {family.name} takes images from {family.min_resolution} pixels up and "
            f"the data set has {resolution}; choose one of {', '.join(fitting)}."
        )
    if family.patch and resolution % family.patch:
        return (
            f"model.family: {family.name} cuts images into patches of {family.patch} pixels, and "
            f"{resolution} is not a multiple of that; set dataset.resolution to one."
        )
    return None


def _checked(config: ModelConfig) -> Family:
    """Return the family of a config. Raises `UserError` if `check` finds a problem."""
    if problems := check(config):
        raise UserError(" ".join(problems))
    family = find_family(config.family)
    assert family is not None
    return family


def unsuited(what: str, name: str, suits: Callable[[Family], bool]) -> str | None:
    """Return a sentence if `what` does not suit the family `name`, or else None.

    The sentence lists the families for which `suits` is True. The result is also None for a family
    that does not exist, because `check` reports it.
    """
    family = find_family(name)
    if family is None or suits(family):
        return None
    note = " (a model of timm's)" if name.startswith(TIMM) else ""
    suited = ", ".join(other for other in FAMILIES.names() if suits(FAMILIES.get(other)))
    return f"{what} does not suit the family {name}{note}; it suits {suited}"


def roles(config: ModelConfig) -> dict[str, tuple[str, ...]]:
    """Return the names of the modules with the roles `classifier` and `first_conv`.

    `compress.protect` can name these roles. A role that no module of the model has is left out.
    """
    family = _checked(config)
    if config.family.startswith(TIMM):
        return timm_roles(config.family.removeprefix(TIMM))
    named = {"classifier": family.classifier, "first_conv": family.first_conv}
    return {role: (module,) for role, module in named.items() if module is not None}


def build(
    config: ModelConfig,
    num_classes: int,
    in_channels: int = 3,
    *,
    seed: int,
    resolution: int | None = None,
    times: float = 1.0,
) -> nn.Module:
    """Return a model on the CPU in fp32, whose initial weights are a pure function of `seed`.

    The model's width is `times` the width of the config. Models of timm and families that learn a
    position for each patch need the `resolution` (pixels). Constructors of torch and timm draw
    weights from the CPU's default generator. That generator is seeded before the model is built,
    and restored afterwards. Generators of other devices are not touched.

    Raises:
        UserError: `check` finds a mistake, or timm's model does not take the resolution.
        ValueError: the family needs the resolution, and it is not given.
    """
    import torch

    from harness import rng
    from harness.models.pointwise import replace_strided_pointwise

    config = config.model_copy(update={"width": round(config.width * times, 9)})
    family = _checked(config)
    size: dict[str, Any] = {}
    if family.patch is not None or family.fixed_width:
        if resolution is None:
            raise ValueError(f"{family.name} is built for one resolution: pass `resolution`")
        size = {"resolution": resolution}
    state = torch.get_rng_state()
    torch.default_generator.manual_seed(rng.derive(seed, "init"))
    try:
        model = family.build(
            depth=config.depth,
            width=config.width,
            num_classes=num_classes,
            in_channels=in_channels,
            **size,
        )
    finally:
        torch.set_rng_state(state)
    return replace_strided_pointwise(model)
