"""The spaces: which ops a policy draws from, and what each op's value is at each magnitude.

A space is a table. A row gives an op's values at evenly spaced magnitudes from 0 to 1 (two values:
a straight line), and whether a random sign mirrors the value about its first one. Magnitude is a
share of the table's scale, never a library's bin: "M 9" means three different things in three
libraries. A table of your own is a YAML or JSON file, named in the policy: `my.yaml(n=2, m=0.3)`.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from harness.augment import autoaugment
from harness.augment.ops import Kind, check_value, find_op
from harness.augment.plan import Colour, check_fill
from harness.errors import UserError, nearest
from harness.paths import GRIDS
from harness.plain_yaml import plain

ROUNDINGS = ("none", "nearest", "down")
MOST_OPS = 16  # for one sample


@dataclass(frozen=True)
class Row:
    """One op of a space. `values`: at evenly spaced magnitudes from 0 to 1, rising or falling.

    `signed` mirrors a value about values[0] with probability one half. `rounding` makes the
    distance from values[0] whole: to the nearest, or down (towards values[0]).
    """

    op: str
    values: tuple[float, ...] = (0.0, 0.0)
    signed: bool = False
    rounding: str = "none"

    def at(self, magnitude: NDArray[np.float64], sign: NDArray[np.float64]) -> NDArray[np.float64]:
        """Values in Pillow's units (shares for Rel ops) for magnitudes and signs of +1 or -1."""
        grid = np.linspace(0.0, 1.0, len(self.values))
        change = np.interp(magnitude, grid, np.asarray(self.values) - self.values[0])
        if self.rounding == "nearest":
            change = np.rint(change)
        elif self.rounding == "down":
            change = np.trunc(change)
        return self.values[0] + change * (sign if self.signed else 1.0)


@dataclass(frozen=True)
class Step:
    """An op of a chain: applied with probability `p`, at `level` times the magnitude."""

    op: str
    p: float
    level: float


@dataclass(frozen=True)
class Space:
    """A named table. `n`, `spread` and `fill` are what a policy takes when it does not say.

    With `chains` a sample draws one chain, whose ops and probabilities are fixed; otherwise it
    draws `n` rows, with replacement, each applied with probability `p`.
    """

    name: str
    source: str
    rows: tuple[Row, ...]
    n: int = 2
    p: float = 1.0
    spread: Literal["fixed", "uniform"] | float = "fixed"
    fill: Colour = (0, 0, 0)
    chains: tuple[tuple[Step, ...], ...] = ()


def _rows(
    *, shear: float, translate: tuple[str, float], rotate: float, factor: float, posterize: Row
) -> tuple[Row, ...]:
    """The rows that nearly all spaces share, each from its op's identity outwards.

    `translate`: "Rel" and a share of the side, or "" and pixels; `factor`: the most that an enhance
    factor differs from 1, 0 for none of those ops.
    """
    suffix, distance = translate
    enhance = ("Brightness", "Color", "Contrast", "Sharpness") if factor else ()
    return (
        Row("ShearX", (0.0, shear), signed=True),
        Row("ShearY", (0.0, shear), signed=True),
        Row(f"TranslateX{suffix}", (0.0, distance), signed=True),
        Row(f"TranslateY{suffix}", (0.0, distance), signed=True),
        Row("Rotate", (0.0, rotate), signed=True),
        *(Row(op, (1.0, 1.0 + factor), signed=True) for op in enhance),
        posterize,
        Row("Solarize", (256.0, 0.0)),
    )


_IDENTITY = (Row("Identity"),)
_WHOLE = (Row("AutoContrast", (1.0, 1.0)), Row("Equalize", (1.0, 1.0)))  # in full at every m
_BLENDED = (Row("AutoContrast", (0.0, 1.0)), Row("Equalize", (0.0, 1.0)))
_INVERT = (Row("Invert", (1.0, 1.0)),)
_TO_4_BITS = Row("Posterize", (8.0, 4.0), rounding="nearest")
_TO_2_BITS = Row("Posterize", (8.0, 2.0), rounding="nearest")
# 4 - int(4 m) of timm and AugMix, which ends at 0 bits: Pillow refuses those, so 1 is the last.
_FROM_4_BITS = Row("Posterize", (4.0, 3.0, 2.0, 1.0, 1.0), rounding="down")
_TORCHVISION = _rows(
    shear=0.3, translate=("Rel", 150 / 331), rotate=30.0, factor=0.9, posterize=_TO_4_BITS
)

_TIMM = (
    *_rows(shear=0.3, translate=("Rel", 0.45), rotate=30.0, factor=0.9, posterize=_FROM_4_BITS),
    Row("SolarizeAdd", (0.0, 110.0), rounding="down"),
)
_UNIFORM = (
    *_rows(shear=0.3, translate=("Rel", 0.45), rotate=30.0, factor=0.9, posterize=_TO_4_BITS),
    Row("CutoutRel", (0.0, 0.2)),
)


def _chains(policy: tuple[autoaugment.SubPolicy, ...]) -> tuple[tuple[Step, ...], ...]:
    names = {"TranslateX": "TranslateXRel", "TranslateY": "TranslateYRel"}
    return tuple(
        tuple(Step(names.get(op, op), p, level / 9) for op, p, level in steps) for steps in policy
    )


_ALL = (
    Space("none", "no op at all", rows=()),
    Space(
        "randaug",
        "Cubuk et al. 2020 (arXiv 1909.13719) with the ranges of torchvision 0.29's RandAugment; "
        "solarize from 256, so that m = 0 inverts nothing (torchvision: from 255)",
        _IDENTITY + _TORCHVISION + _WHOLE,
    ),
    Space(
        "randaug_strict",
        "randaug with AutoContrast and Equalize blended with the input by weight m, so that m = 0 "
        "is the identity and strength grows with m for every op",
        _IDENTITY + _TORCHVISION + _BLENDED,
    ),
    Space(
        "randaug_timm_inc",
        "timm 1.0.31 auto_augment.py, rand-...-inc1; m is timm's magnitude / 10; each op with "
        "probability 1/2, as there",
        _TIMM + _WHOLE + _INVERT,
        p=0.5,
        fill=(128, 128, 128),
    ),
    Space(
        "trivial_wide",
        "Mueller and Hutter 2021 (arXiv 2103.10158) with the ranges of torchvision 0.29's "
        "TrivialAugmentWide; magnitudes uniform in [0, m] where torchvision has 31 bins",
        _IDENTITY
        + tuple(
            replace(row, rounding="down") if row.op.startswith("Translate") else row  # as there
            for row in _rows(
                shear=0.99, translate=("", 32.0), rotate=135.0, factor=0.99, posterize=_TO_2_BITS
            )
        )
        + _WHOLE,
        n=1,
        spread="uniform",
    ),
    Space(
        "uniform",
        "UniformAugment: LingChen et al. 2020 (arXiv 2003.14348); magnitudes uniform in [0, m], "
        "each op with a probability that is itself uniform, which is 1/2 for each op",
        _UNIFORM + _WHOLE + _INVERT,
        p=0.5,
        spread="uniform",
    ),
    Space(
        "augmix",
        "the ops of AugMix: Hendrycks et al. 2020 (arXiv 1912.02781), ranges of torchvision 0.29, "
        "m = severity / 10; one chain, without the mixing of three and without its loss",
        _rows(shear=0.3, translate=("Rel", 1 / 3), rotate=30.0, factor=0.0, posterize=_FROM_4_BITS)
        + _WHOLE,
        spread="uniform",
    ),
    Space(
        "autoaugment_imagenet",
        "Cubuk et al. 2019 (arXiv 1805.09501), ImageNet, as in torchvision 0.29; every level is "
        "multiplied by m, so m = 1 is the published policy",
        _TORCHVISION + _WHOLE + _INVERT,
        chains=_chains(autoaugment.IMAGENET),
    ),
    Space(
        "autoaugment_cifar10",
        "the same for CIFAR-10",
        _TORCHVISION + _WHOLE + _INVERT,
        chains=_chains(autoaugment.CIFAR10),
    ),
)

SPACES: dict[str, Space] = {space.name: space for space in _ALL}
TABLES = GRIDS / "spaces"
"""Tables that are shipped: named without folder and suffix, from wherever a command is called."""
SUFFIXES = (".yaml", ".yml", ".json")
_HASHED = re.compile(r"(?P<path>.*)@(?P<digest>[0-9a-f]{8})")
_LONGEST, _DEEPEST = 1 << 16, 8  # characters and nesting of a table


def find_space(name: str) -> Space:
    """A space by its name, or by its table's path, with or without a hash: `my.yaml@1f0c2a9b`.

    A table of `TABLES` goes by its name without suffix. A table without a hash gets that of its
    content, so that a policy's text, and with it the identity of a training, changes when the table
    does. Raises `UserError` for an unknown name, a file that is not there or is no space, and a
    hash that does not fit.
    """
    if name in SPACES:
        if (TABLES / f"{name}.yaml").exists():
            raise UserError(
                f"{TABLES / name}.yaml has the name of a space that is built in: give it another."
            )
        return SPACES[name]
    hashed = _HASHED.fullmatch(name)
    path, known = (hashed["path"], hashed["digest"]) if hashed else (name, "")
    shipped = {table.stem: table for table in sorted(TABLES.glob("*.yaml"))}
    if path not in shipped and not path.endswith(SUFFIXES):
        raise UserError(
            f"no augmentation space '{name}'{nearest(name, [*SPACES, *shipped])}; "
            "a table of your own is named by its path, ending in .yaml or .json."
        )
    space = load_space(shipped.get(path, Path(path)))
    digest = space.name.rpartition("@")[2]
    if known not in ("", digest):
        raise UserError(
            f"{path} has changed: the policy was made for @{known}, and the file is @{digest} now; "
            "restore it, or give the new table a name of its own."
        )
    return replace(space, name=f"{path}@{digest}")


def load_space(path: Path) -> Space:
    """Read a table from YAML or JSON (docs/augment.md shows one). Runs no code from it.

    Raises `UserError` for a file that is not there or is no space, with what is wrong in it.
    """
    return _space(path, _text(path))


@functools.lru_cache(maxsize=256)  # a grid asks for the same few in each of its trials
def _space(path: Path, text: str) -> Space:
    table = _table(path, text)
    if not isinstance(table, dict) or not isinstance(table.get("ops"), dict) or not table["ops"]:
        raise UserError(f"{path}: a space is a mapping with a table `ops`, a row for each op.")
    _known(table, ("source", "ops", "n", "p", "spread", "fill"), str(path))
    rows = tuple(_row(str(op), entry or {}, path) for op, entry in table["ops"].items())
    source = table.get("source", str(path))
    if not isinstance(source, str):
        raise UserError(f"{path}: source is a text that says where the ranges are from.")
    n, p, spread = table.get("n", 2), table.get("p", 1.0), table.get("spread", "fixed")
    if isinstance(n, bool) or not isinstance(n, int) or not 1 <= n <= MOST_OPS:
        raise UserError(f"{path}: n is the number of ops, from 1 to {MOST_OPS}, not {n!r}.")
    if isinstance(p, bool) or not isinstance(p, int | float) or not 0 < p <= 1:
        raise UserError(
            f"{path}: p is the probability of each op, above 0 up to 1, not {p!r}{_plainly(p)}."
        )
    if spread not in ("fixed", "uniform") and not _is_share(spread):
        raise UserError(
            f"{path}: spread is fixed, uniform or a standard deviation above 0 up to 1, not "
            f"{spread!r}{_plainly(spread)}."
        )
    fill = table.get("fill", (0, 0, 0))
    fill = tuple(fill) if isinstance(fill, list | tuple) else (fill,) * 3
    check_fill(fill, str(path))
    # Unsorted: a draw is a position in the table, so other rows or the same in another order are
    # another space.
    digest = hashlib.sha256(json.dumps(table).encode()).hexdigest()
    name = f"{path}@{digest[:8]}"
    return Space(name, source, rows, n=n, p=float(p), spread=spread, fill=fill)


def _is_share(value: object) -> bool:
    return not isinstance(value, bool) and isinstance(value, int | float) and 0 < value <= 1


def _plainly(value: object) -> str:
    """A hint, where YAML 1.1 reads a number such as 1e-3 as text."""
    try:
        number = float(value) if isinstance(value, str) else np.nan
    except ValueError:
        return ""
    written = np.format_float_positional(number, trim="-")
    return f" but text in YAML: write {written}" if np.isfinite(number) else ""


def _text(path: Path) -> str:
    try:
        with Path(path).expanduser().open(encoding="utf-8") as file:
            text = file.read(_LONGEST + 1)
    except (OSError, ValueError, RuntimeError) as error:  # also no such user, no text, a zero byte
        raise UserError(f"no augmentation space at {path}: {error}.") from error
    if len(text) > _LONGEST:
        raise UserError(f"{path} has more than {_LONGEST} characters: that is too long.")
    return text


def _table(path: Path, text: str) -> object:
    """What a small YAML or JSON file says, in plain values, each key once."""
    if path.suffix == ".json":
        return _json(path, text)
    return plain(text, str(path), _LONGEST, _DEEPEST)


def _json(path: Path, text: str) -> object:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        if twice := {key for key in keys if keys.count(key) > 1}:
            raise UserError(f"{path} says '{min(twice)}' twice: only one would count.")
        return dict(pairs)

    try:
        return json.loads(text, object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON: {error}.") from error


def _known(entry: Mapping[str, Any], keys: tuple[str, ...], where: str) -> None:
    for key in entry:
        if key not in keys:
            raise UserError(f"{where}: unknown key '{key}'{nearest(str(key), keys)}.")


def _row(name: str, entry: Mapping[str, Any], path: Path) -> Row:
    where = f"{path}: ops.{name}"
    op = find_op(name, str(path))
    if op.name == "Cutout":
        raise UserError(f"{where}: a space draws its boxes as shares: write CutoutRel.")
    if not isinstance(entry, Mapping):
        raise UserError(f"{where}: a row is a mapping such as {{values: [0, 30], signed: true}}.")
    _known(entry, ("values", "signed", "rounding"), where)
    if op.kind == Kind.IDENTITY:
        return Row(name)
    values, signed = entry.get("values"), entry.get("signed", False)
    rounding = entry.get("rounding", "nearest" if op.whole else "none")
    if not isinstance(values, list) or len(values) < 2:
        raise UserError(
            f"{where}: `values` lists the value at m = 0, ..., at m = 1: two or more {op.unit}."
        )
    if not isinstance(signed, bool):
        raise UserError(f"{where}: signed is true or false, not {signed!r}.")
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise UserError(f"{where}: {value!r} is not a number{_plainly(value)}.")
        check_value(op, value, where)
        if signed:
            check_value(op, 2 * values[0] - value, f"{where}, mirrored")
    change = np.subtract(values, op.neutral or 0.0)
    if change.min() < 0 < change.max() or (np.diff(np.abs(change)) < 0).any():
        raise UserError(
            f"{where}: strength must grow with m, so the values move away from {op.neutral:g}, "
            f"which changes nothing, to one side; {values} do not."
        )
    if signed and change[0]:
        raise UserError(
            f"{where}: signed mirrors about the first value, so begin at {op.neutral:g}, which "
            f"changes nothing, not at {values[0]:g}."
        )
    if rounding not in ROUNDINGS or (op.whole and rounding == "none"):
        raise UserError(f"{where}: rounding '{rounding}'{nearest(str(rounding), ROUNDINGS[1:])}.")
    return Row(name, tuple(float(value) for value in values), signed, rounding)
