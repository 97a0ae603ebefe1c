"""A policy: a space, how many ops, how strong. Printable; its text is what configs and tables hold.

    parse_policy("randaug(n=2, m=0.3)").draw(seed=0, epoch=0, indices=np.arange(128))

Arguments; all but m have a default, which is the space's, and `nearest` for interpolation:

n              ops for each sample, drawn with replacement (not for chains such as AutoAugment's)
m              magnitude in [0, 1], a share of the space's scale
spread         how magnitudes differ, drawn for each op of each sample: `fixed` (all are m),
               `uniform` (in [0, m]), or a number: the standard deviation of a normal distribution
               about m, clipped to [0, 1]
fill           colour of what comes in from outside the image: 128, or 124/116/104
interpolation  `nearest` or `bilinear`
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from harness import rng
from harness.augment.ops import CODES, OPS, Kind
from harness.augment.plan import INTERPOLATIONS, Colour, Plan
from harness.augment.spaces import MOST_OPS, SPACES, SUFFIXES, Row, Space, find_space
from harness.errors import UserError, nearest

_TEXT = re.compile(r"(?P<space>[^\s()]+)\s*(?:\((?P<arguments>[^()]*)\))?")
_ARGUMENTS = ("n", "m", "spread", "fill", "interpolation")
_WORDS = 8  # random words of a layer: op, sign, applied?, magnitude (2), box (2), one to spare
_UNIT = 2.0**-32


@dataclass(frozen=True)
class _Steps:
    """What a draw picks from: the rows of the space, or the steps of its chains one after another.

    codes: uint8 [S] of ops. p: probabilities [S]. level: factors [S] of the magnitude. values:
    [S, 2] at magnitude m, with a negative and a positive sign. boxed: codes of ops that cut out.
    """

    codes: NDArray[np.uint8]
    rows: tuple[Row, ...]
    p: NDArray[np.float64]
    level: NDArray[np.float64]
    values: NDArray[np.float64]
    boxed: list[int]


@dataclass(frozen=True)
class Policy:
    """A space with its arguments. `str` gives the canonical text, which `parse_policy` reads."""

    space: Space
    n: int = 0
    m: float = 0.0
    spread: Literal["fixed", "uniform"] | float = "fixed"
    fill: Colour = (0, 0, 0)
    interpolation: str = "nearest"

    def __post_init__(self) -> None:
        _magnitude(self.m, self.space.name)

    def __str__(self) -> str:
        if not self.space.rows:
            return self.space.name
        words = [] if self.space.chains else [f"n={self.n}"]
        words.append(f"m={_number(self.m)}")
        if self.spread != "fixed" or self.space.spread != "fixed":
            words.append(f"spread={_number(self.spread)}")
        if self.fill != self.space.fill:
            words.append("fill=" + "/".join(str(value) for value in self.fill))
        if self.interpolation != "nearest":
            words.append(f"interpolation={self.interpolation}")
        return f"{self.space.name}({', '.join(words)})"

    def draw(self, seed: int, epoch: int, indices: NDArray[np.int64]) -> Plan:
        """What happens to the samples with ids `indices` [N] in this epoch.

        A pure function of (seed, epoch, id): neither the batch nor its order matters. The op, sign
        and place of a sample do not depend on m, so magnitudes are compared on the same draws.
        """
        words = rng.bits(seed, "policy", epoch, indices, _WORDS * self.n)
        words = words.reshape(len(indices), self.n, _WORDS).transpose(2, 1, 0)  # [word, layer, N]
        steps, chains = self._steps, len(self.space.chains)
        if chains:  # of one chain, the first step in the first layer, ...
            first = rng.scale(words[0, :1], chains) * self.n
            chosen = first + np.arange(self.n)[:, None]
        else:
            chosen = rng.scale(words[0], max(1, len(steps.codes)))
        ops, positive = steps.codes[chosen], words[1] >> 31
        if self.spread == "fixed":
            values = steps.values[chosen, positive]
        else:
            values = self._vary(words, chosen, positive)
        left_out = words[2] * _UNIT >= steps.p[chosen]
        ops[left_out], values[left_out] = 0, 0.0
        boxes = None
        if steps.boxed:
            centre = np.stack([words[5], words[6]] * 2, axis=-1) * _UNIT
            half = values[..., None] * np.array([-0.5, -0.5, 0.5, 0.5])
            boxed = np.isin(ops, steps.boxed)[..., None]
            boxes = np.where(boxed, centre + half, 0.0)
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
            boxed=[CODES[row.op] for row in rows if OPS[row.op].kind == Kind.BOX],
        )

    def _vary(
        self, words: NDArray[np.uint32], chosen: NDArray[np.int64], positive: NDArray[np.uint32]
    ) -> NDArray[np.float64]:
        """Values [layers, N] of the chosen steps, at magnitudes that differ by sample."""
        if self.spread == "uniform":
            magnitude = self.m * words[3] * _UNIT
        else:
            assert self.spread != "fixed"
            noise = rng.box_muller(np.stack([words[3], words[4]], axis=-1))[..., 0]
            magnitude = np.clip(self.m + self.spread * noise, 0.0, 1.0)
        magnitude = magnitude * self._steps.level[chosen]
        sign = np.where(positive, 1.0, -1.0)
        values = np.zeros(chosen.shape)
        for step, row in enumerate(self._steps.rows):
            here = chosen == step
            values[here] = row.at(magnitude[here], sign[here])
        return values


def parse_policy(text: str) -> Policy:
    """The policy that `text` names: "none", "randaug(n=2, m=0.3)", "my.yaml(n=1, m=0.5)".

    Raises `UserError` for an unknown space or argument, a value out of range, or a missing m.
    """
    policy, given = _parse(text)
    if policy.space.rows and "m" not in given:
        raise UserError(f"policy '{text}' has no magnitude: add one, such as m=0.3.")
    return policy


def with_magnitude(policy_text: str, magnitude: Literal["none"] | float) -> str:
    """The complete text of a policy at a magnitude; "none" for the magnitude "none".

    Raises `UserError` as `parse_policy` does, and where the text already has an m.
    """
    name = policy_text.partition("(")[0].strip()
    complete = _kept_complete if name in SPACES else _complete  # a table's file may change
    return complete(policy_text, magnitude)


def _complete(policy_text: str, magnitude: Literal["none"] | float) -> str:
    policy, given = _parse(policy_text)
    if "m" in given:
        raise UserError(
            f"policy '{policy_text}' already has a magnitude: leave m out of augment.policy and "
            "set augment.magnitude."
        )
    if magnitude == "none":
        return "none"
    if not policy.space.rows:
        raise UserError(
            f"policy 'none' has no magnitude {magnitude}: set augment.magnitude to none, or choose "
            "a space, such as randaug(n=2)."
        )
    return str(replace(policy, m=_magnitude(magnitude, policy_text)))


# a grid asks for the same few policies in each of its trials
_kept_complete = functools.lru_cache(maxsize=4096)(_complete)


def _parse(text: str) -> tuple[Policy, dict[str, str]]:
    match = _TEXT.fullmatch(text.strip())
    if match is None and any(suffix in text for suffix in SUFFIXES):
        raise UserError(
            f"'{text}' is not a policy: the path of a table has neither blanks nor parentheses in "
            "it, and arguments follow as in my.yaml(n=2, m=0.3); rename the file or its folder."
        )
    if match is None:
        raise UserError(
            f"'{text}' is not a policy: write a space and its arguments, such as "
            "randaug(n=2, m=0.3), or none."
        )
    space = find_space(match["space"])
    given: dict[str, str] = {}
    for part in (match["arguments"] or "").split(","):
        key, equals, value = (word.strip() for word in part.partition("="))
        if not key and not equals and not (match["arguments"] or "").strip():
            continue
        if not equals or not value or key in given:
            raise UserError(
                f"policy '{text}': '{part.strip()}' is not one new argument, name=value."
            )
        if key not in _ARGUMENTS or not space.rows or (key == "n" and space.chains):
            taken = [a for a in _ARGUMENTS if space.rows and not (a == "n" and space.chains)]
            raise UserError(f"policy '{text}': {space.name} takes no '{key}'{nearest(key, taken)}.")
        given[key] = value
    if not space.rows:
        return Policy(space), given
    n = len(space.chains[0]) if space.chains else space.n
    interpolation = given.get("interpolation", "nearest")
    if interpolation not in INTERPOLATIONS:
        known = nearest(interpolation, INTERPOLATIONS)
        raise UserError(f"policy '{text}': no interpolation '{interpolation}'{known}.")
    return Policy(
        space,
        n=_count(given["n"], text) if "n" in given else n,
        m=_magnitude(given["m"], text) if "m" in given else 0.0,
        spread=_spread(given.get("spread", space.spread), text),
        fill=_fill(given["fill"], text) if "fill" in given else space.fill,
        interpolation=interpolation,
    ), given


def _number(value: str | float) -> str:
    """Shortest text that reads back as the same number."""
    return value if isinstance(value, str) else repr(float(value)).removesuffix(".0")


def _count(value: str, text: str) -> int:
    number = _whole(value)
    if not 1 <= number <= MOST_OPS:
        raise UserError(f"policy '{text}': n is a whole number from 1 to {MOST_OPS}, not {value}.")
    return number


def _whole(value: str) -> int:
    """A small whole number, or -1; thousands of digits would be an error of Python's."""
    return int(value) if value.isdecimal() and len(value) < 10 else -1


def _magnitude(value: str | float, text: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = -1.0
    if not 0.0 <= number <= 1.0:
        raise UserError(f"policy '{text}': m is a share from 0 to 1 of the scale, not {value}.")
    return number + 0.0  # -0.0 would print differently


def _spread(value: str | float, text: str) -> Literal["fixed", "uniform"] | float:
    if value in ("fixed", "uniform"):
        return value  # type: ignore[return-value]
    try:
        number = float(value)
    except ValueError:
        number = -1.0
    if not 0.0 < number <= 1.0:
        raise UserError(
            f"policy '{text}': spread is fixed, uniform, or the standard deviation of a normal, "
            f"above 0 up to 1, not {value}."
        )
    return number


def _fill(value: str, text: str) -> Colour:
    parts = value.split("/")
    channels = [_whole(part) for part in parts]
    channels = channels * 3 if len(channels) == 1 else channels
    if len(channels) != 3 or not all(0 <= channel <= 255 for channel in channels):
        raise UserError(
            f"policy '{text}': fill is a grey value or red/green/blue from 0 to 255, such as 128 "
            f"or 124/116/104, not {value}."
        )
    return channels[0], channels[1], channels[2]
