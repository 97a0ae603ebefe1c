"""A policy: a space with a number of ops and a magnitude, and its text in configs and tables.

    parse_policy("randaug(n=2, m=0.3)").draw(seed=0, epoch=0, indices=np.arange(128))

Every argument but m has a default. For `interpolation` it is `nearest`; each space has its own
defaults for the others.

n              number of ops for each sample, drawn with replacement; a space of chains, such as
               AutoAugment's, does not take it
m              magnitude in [0, 1], a share of the space's scale
spread         distribution of the magnitude of each op of each sample: `fixed` (always m),
               `uniform` (in [0, m]), or a number: the standard deviation of a normal distribution
               about m, clipped to [0, 1]
fill           colour of pixels from outside the image: 128, or 124/116/104
interpolation  `nearest` or `bilinear`
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from harness import rng
from harness.augment.ops import CODES, OPS, Colour, Kind
from harness.augment.plan import INTERPOLATIONS, Plan
from harness.augment.spaces import MOST_OPS, SUFFIXES, Row, Space, find_space
from harness.errors import UserError, nearest
from harness.fields import canonical

_TEXT = re.compile(r"(?P<space>[^\s()]+)\s*(?:\((?P<arguments>[^()]*)\))?")
_ARGUMENTS = ("n", "m", "spread", "fill", "interpolation")
# A layer uses these random words of 32 bits: 0 op, 1 sign, 2 whether the op is applied, 3 and 4
# magnitude, 5 and 6 centre of a box, 7 unused.
_WORDS = 8
_UNIT = 2.0**-32  # a word times this is uniform in [0, 1)


@dataclass(frozen=True)
class _Steps:
    """The candidates of a draw: the rows of the space, or the steps of all its chains in order.

    codes: uint8 [S], of the ops. p: probabilities [S]. level: factors [S] of the magnitude. values:
    [S, 2] at magnitude m, with a negative and a positive sign. box_codes: codes of the ops that cut
    out a box.
    """

    codes: NDArray[np.uint8]
    rows: tuple[Row, ...]
    p: NDArray[np.float64]
    level: NDArray[np.float64]
    values: NDArray[np.float64]
    box_codes: list[int]


@dataclass(frozen=True)
class Policy:
    """A space with its arguments. `str` returns the canonical text, which `parse_policy` reads."""

    space: Space
    n: int = 0
    m: float = 0.0
    spread: Literal["fixed", "uniform"] | float = "fixed"
    fill: Colour = (0, 0, 0)
    interpolation: str = "nearest"

    def __post_init__(self) -> None:
        _parse_magnitude(self.m, self.space.name)

    def __str__(self) -> str:
        if not self.space.rows:
            return self.space.name
        arguments = [] if self.space.chains else [f"n={self.n}"]
        arguments.append(f"m={_format_number(self.m)}")
        if self.spread != "fixed" or self.space.spread != "fixed":
            arguments.append(f"spread={_format_number(self.spread)}")
        if self.fill != self.space.fill:
            arguments.append("fill=" + "/".join(str(value) for value in self.fill))
        if self.interpolation != "nearest":
            arguments.append(f"interpolation={self.interpolation}")
        return f"{self.space.name}({', '.join(arguments)})"

    def draw(self, seed: int, epoch: int, indices: NDArray[np.int64]) -> Plan:
        """Return the plan for the samples with ids `indices` [N] in this epoch.

        The ops of a sample are a pure function of (seed, epoch, id) and do not depend on its batch.
        The ops, signs and places do not depend on m, so magnitudes are compared on the same draws.
        """
        words = rng.bits(seed, "policy", epoch, indices, _WORDS * self.n)
        words = words.reshape(len(indices), self.n, _WORDS).transpose(2, 1, 0)  # [word, layer, N]
        steps, chains = self._steps, len(self.space.chains)
        if chains:  # layer k gets step k of the drawn chain
            first = rng.scale(words[0, :1], chains) * self.n
            chosen = first + np.arange(self.n)[:, None]
        else:
            chosen = rng.scale(words[0], max(1, len(steps.codes)))  # the space `none` has no step
        ops, positive = steps.codes[chosen], words[1] >> 31
        if self.spread == "fixed":
            values = steps.values[chosen, positive]
        else:
            values = self._spread_values(words, chosen, positive)
        skipped = words[2] * _UNIT >= steps.p[chosen]
        ops[skipped], values[skipped] = CODES["Identity"], 0.0
        boxes = None
        if steps.box_codes:
            centre = np.stack([words[5], words[6]] * 2, axis=-1) * _UNIT
            half = values[..., None] * np.array([-0.5, -0.5, 0.5, 0.5])
            has_box = np.isin(ops, steps.box_codes)[..., None]
            boxes = np.where(has_box, centre + half, 0.0)
        return Plan(ops, values, boxes, self.fill, self.interpolation)

    @functools.cached_property
    def _steps(self) -> _Steps:
        rows, p, level = self.space.rows, [self.space.p] * len(self.space.rows), [1.0]
        if self.space.chains:
            flat = [step for steps in self.space.chains for step in steps]
            by_op = {row.op: row for row in rows}
            rows = tuple(by_op[step.op] for step in flat)
            p, level = [step.p for step in flat], [step.level for step in flat]
        levels = np.broadcast_to(level, len(rows))
        sign = np.array([-1.0, 1.0])
        values = [row.at(np.full(2, self.m * share), sign) for row, share in zip(rows, levels)]
        return _Steps(
            codes=np.array([CODES[row.op] for row in rows], dtype=np.uint8),
            rows=rows,
            p=np.array(p),
            level=levels,
            values=np.reshape(values, (-1, 2)),
            box_codes=[CODES[row.op] for row in rows if OPS[row.op].kind == Kind.BOX],
        )

    def _spread_values(
        self, words: NDArray[np.uint32], chosen: NDArray[np.int64], positive: NDArray[np.uint32]
    ) -> NDArray[np.float64]:
        """Return values [layers, N] of the chosen steps, at magnitudes drawn for each sample."""
        if self.spread == "uniform":
            magnitude = self.m * words[3] * _UNIT
        else:
            assert self.spread != "fixed"  # `draw` takes its values from `_steps`
            noise = rng.box_muller(np.stack([words[3], words[4]], axis=-1))[..., 0]
            magnitude = np.clip(self.m + self.spread * noise, 0.0, 1.0)
        magnitude = magnitude * self._steps.level[chosen]
        sign = np.where(positive, 1.0, -1.0)
        values = np.zeros(chosen.shape)
        for step, row in enumerate(self._steps.rows):
            samples = chosen == step
            values[samples] = row.at(magnitude[samples], sign[samples])
        return values


def parse_policy(text: str) -> Policy:
    """Return the policy of a text: "none", "randaug(n=2, m=0.3)", "my.yaml(n=1, m=0.5)".

    Raises `UserError` for an unknown space or argument, a value out of range, or a missing m.
    """
    policy, arguments = _parse(text)
    if policy.space.rows and "m" not in arguments:
        raise UserError(f"policy '{text}' has no magnitude: add one, such as m=0.3.")
    return policy


def with_magnitude(policy_text: str, magnitude: Literal["none"] | float) -> str:
    """Return the complete text of a policy at a magnitude; "none" for the magnitude "none".

    Raises `UserError` as `parse_policy` does, and where the text already has an m.
    """
    policy, arguments = _parse(policy_text)
    if "m" in arguments:
        raise UserError(
            f"policy '{policy_text}' already has a magnitude: leave m out, and in a "
            "grid set augment.magnitude."
        )
    if magnitude == "none":
        return "none"
    if not policy.space.rows:
        raise UserError(
            f"policy 'none' has no magnitude {magnitude}: set augment.magnitude to none, or choose "
            "a space, such as randaug(n=2)."
        )
    return str(replace(policy, m=_parse_magnitude(magnitude, policy_text)))


def without_folder(text: str, folder: Path) -> str:
    """Return the text of a policy, with the path of a user's table replaced by `NAME@HASH`.

    NAME is the table's file name, and HASH the hash of its content. The table is looked up in
    `folder`, then from the current directory. A text that is not a policy with a readable table is
    returned unchanged.
    """
    match = _TEXT.fullmatch(text.strip())
    if match is None or not match["space"].endswith(SUFFIXES):
        return text
    beside = folder / match["space"]
    try:
        name = find_space(str(beside) if beside.exists() else match["space"]).name
    except UserError:
        return text
    return text.strip().replace(match["space"], name, 1)


def _parse(text: str) -> tuple[Policy, dict[str, str]]:
    """Return the policy (m is 0 if the text has none), and the arguments in the text."""
    match = _TEXT.fullmatch(text.strip())
    if match is None and any(suffix in text for suffix in SUFFIXES):
        raise UserError(
            f"'{text}' is not a policy: the path of a table may have neither blanks nor "
            "parentheses, and arguments follow it as in my.yaml(n=2, m=0.3); rename the file or "
            "its folder."
        )
    if match is None:
        raise UserError(
            f"'{text}' is not a policy: write a space and its arguments, such as "
            "randaug(n=2, m=0.3), or none."
        )
    space = find_space(match["space"])
    valid = [a for a in _ARGUMENTS if space.rows and not (a == "n" and space.chains)]
    text_of_arguments = (match["arguments"] or "").strip()
    arguments: dict[str, str] = {}
    for part in text_of_arguments.split(",") if text_of_arguments else ():
        key, equals, value = (word.strip() for word in part.partition("="))
        if not equals or not value:
            raise UserError(
                f"policy '{text}': '{part.strip()}' is not an argument name=value, such as m=0.3."
            )
        if key in arguments:
            raise UserError(f"policy '{text}': '{key}' is given twice: remove one.")
        if key not in valid:
            raise UserError(
                f"policy '{text}': {space.name} does not take '{key}'{nearest(key, valid)}."
            )
        arguments[key] = value
    if not space.rows:
        return Policy(space), arguments
    n = len(space.chains[0]) if space.chains else space.n
    interpolation = arguments.get("interpolation", "nearest")
    if interpolation not in INTERPOLATIONS:
        choice = nearest(interpolation, INTERPOLATIONS)
        raise UserError(f"policy '{text}': unknown interpolation '{interpolation}'{choice}.")
    return Policy(
        space,
        n=_parse_n(arguments["n"], text) if "n" in arguments else n,
        m=_parse_magnitude(arguments["m"], text) if "m" in arguments else 0.0,
        spread=_parse_spread(arguments.get("spread", space.spread), text),
        fill=_parse_fill(arguments["fill"], text) if "fill" in arguments else space.fill,
        interpolation=interpolation,
    ), arguments


def _format_number(value: str | float) -> str:
    """Return the shortest text that reads back as the same number."""
    return value if isinstance(value, str) else repr(float(value)).removesuffix(".0")


def _parse_n(value: str, text: str) -> int:
    number = _parse_whole(value)
    if not 1 <= number <= MOST_OPS:
        raise UserError(f"policy '{text}': n is a whole number from 1 to {MOST_OPS}, not {value}.")
    return number


def _parse_whole(value: str) -> int:
    """Return a whole number below 10^9, or -1 for any other text."""
    # `int` raises an error for a text of thousands of digits.
    return int(value) if value.isdecimal() and len(value) < 10 else -1


def _parse_magnitude(value: str | float, text: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = -1.0
    if not 0.0 <= number <= 1.0:
        raise UserError(f"policy '{text}': m is a share from 0 to 1 of the scale, not {value}.")
    return number + 0.0  # -0.0 would print differently


def _parse_spread(value: str | float, text: str) -> Literal["fixed", "uniform"] | float:
    if value in ("fixed", "uniform"):
        return value  # type: ignore[return-value]
    try:
        number = float(value)
    except ValueError:
        number = -1.0
    if not 0.0 < number <= 1.0:
        raise UserError(
            f"policy '{text}': spread is fixed, uniform, or the standard deviation of a normal "
            f"distribution, above 0 and up to 1, not {value}."
        )
    return float(canonical(number))


def _parse_fill(value: str, text: str) -> Colour:
    parts = value.split("/")
    channels = [_parse_whole(part) for part in parts]
    channels = channels * 3 if len(channels) == 1 else channels
    if len(channels) != 3 or not all(0 <= channel <= 255 for channel in channels):
        raise UserError(
            f"policy '{text}': fill is a grey value or red/green/blue from 0 to 255, such as 128 "
            f"or 124/116/104, not {value}."
        )
    return channels[0], channels[1], channels[2]
