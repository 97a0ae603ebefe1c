"""The spaces: the ops that a policy draws from, and the value of each op at each magnitude.

A space is a table. A row gives an op's values at evenly spaced magnitudes from 0 to 1, and whether
a random sign mirrors the value about the first one. Between the given values, the value is
interpolated linearly. Magnitude is a share of the table's scale, not the bin of a library, because
"M 9" has a different meaning in each library. A user's own table is a YAML or JSON file, whose path
is in the policy: `my.yaml(n=2, m=0.3)`.
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
from harness.augment.ops import Colour, Kind, check_value, find_op
from harness.augment.plan import check_fill
from harness.errors import UserError, nearest
from harness.files import user_path
from harness.paths import GRIDS
from harness.plain_yaml import plain, read_text, remember_tables, table_files

ROUNDINGS = ("none", "nearest", "down")
MOST_OPS = 16  # the largest `n` of a policy


@dataclass(frozen=True)
class Row:
    """One op of a space.

    values: at evenly spaced magnitudes from 0 to 1, in Pillow's units, rising or falling. signed:
    whether a value is mirrored about values[0] with probability one half. rounding: how the
    distance from values[0] becomes a whole number: `nearest`, `down` (towards values[0]), or `none`
    for no rounding.
    """

    op: str
    values: tuple[float, ...] = (0.0, 0.0)
    signed: bool = False
    rounding: str = "none"

    def at(self, magnitude: NDArray[np.float64], sign: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return values in Pillow's units (or shares of a side) for magnitudes and signs +1, -1."""
        grid = np.linspace(0.0, 1.0, len(self.values))
        change = np.interp(magnitude, grid, np.asarray(self.values) - self.values[0])
        if self.rounding == "nearest":
            change = np.rint(change)
        elif self.rounding == "down":
            change = np.trunc(change)
        return self.values[0] + change * (sign if self.signed else 1.0)


@dataclass(frozen=True)
class Step:
    """An op of a chain, applied with probability `p` at `level` times the magnitude."""

    op: str
    p: float
    level: float


@dataclass(frozen=True)
class Space:
    """A named table; `n`, `spread` and `fill` are the defaults of a policy's arguments.

    A sample draws `n` rows, with replacement, and applies each with probability `p`. In a space
    with `chains` it draws one chain instead, whose ops and probabilities are fixed.
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
    """Return the rows that nearly all spaces share, starting at the value that changes nothing.

    translate: ("Rel", share of the side) or ("", pixels). factor: the largest difference of an
    enhance factor from 1; 0 leaves those ops out.
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
_FULL = (Row("AutoContrast", (1.0, 1.0)), Row("Equalize", (1.0, 1.0)))  # full effect at every m
_BLENDED = (Row("AutoContrast", (0.0, 1.0)), Row("Equalize", (0.0, 1.0)))
_INVERT = (Row("Invert", (1.0, 1.0)),)
_TO_4_BITS = Row("Posterize", (8.0, 4.0), rounding="nearest")
_TO_2_BITS = Row("Posterize", (8.0, 2.0), rounding="nearest")
# timm and AugMix keep 4 - int(4 m) bits. At m = 1 that is 0 bits, which Pillow refuses. So the last
# value is 1 here.
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
        _IDENTITY + _TORCHVISION + _FULL,
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
        _TIMM + _FULL + _INVERT,
        p=0.5,
        fill=(128, 128, 128),
    ),
    Space(
        "trivial_wide",
        "Mueller and Hutter 2021 (arXiv 2103.10158) with the ranges of torchvision 0.29's "
        "TrivialAugmentWide; magnitudes uniform in [0, m] where torchvision has 31 bins",
        _IDENTITY
        + tuple(
            # TrivialAugmentWide of torchvision also truncates translations to whole pixels.
            replace(row, rounding="down") if row.op.startswith("Translate") else row
            for row in _rows(
                shear=0.99, translate=("", 32.0), rotate=135.0, factor=0.99, posterize=_TO_2_BITS
            )
        )
        + _FULL,
        n=1,
        spread="uniform",
    ),
    Space(
        "uniform",
        "UniformAugment: LingChen et al. 2020 (arXiv 2003.14348); magnitudes uniform in [0, m], "
        "each op with a probability that is itself uniform, which is 1/2 for each op",
        _UNIFORM + _FULL + _INVERT,
        p=0.5,
        spread="uniform",
    ),
    Space(
        "augmix",
        "the ops of AugMix: Hendrycks et al. 2020 (arXiv 1912.02781), ranges of torchvision 0.29, "
        "m = severity / 10; one chain, without the mixing of three and without its loss",
        _rows(shear=0.3, translate=("Rel", 1 / 3), rotate=30.0, factor=0.0, posterize=_FROM_4_BITS)
        + _FULL,
        spread="uniform",
    ),
    Space(
        "autoaugment_imagenet",
        "Cubuk et al. 2019 (arXiv 1805.09501), ImageNet, as in torchvision 0.29; every level is "
        "multiplied by m, so m = 1 is the published policy",
        _TORCHVISION + _FULL + _INVERT,
        chains=_chains(autoaugment.IMAGENET),
    ),
    Space(
        "autoaugment_cifar10",
        "the same for CIFAR-10",
        _TORCHVISION + _FULL + _INVERT,
        chains=_chains(autoaugment.CIFAR10),
    ),
)

SPACES: dict[str, Space] = {space.name: space for space in _ALL}
TABLES = GRIDS / "spaces"
"""The folder of shipped tables, which a policy names without folder and suffix."""
SUFFIXES = (".yaml", ".yml", ".json")
_HASHED = re.compile(r"(?P<path>.*)@(?P<digest>[0-9a-f]{8})")
_LONGEST, _DEEPEST = 1 << 16, 8  # limits of a table: characters, levels of nesting


def find_space(name: str) -> Space:
    """Return the space that `name` names: a built-in space, or a table.

    The name of a table is its path, or the name of a shipped table, and may end in a hash, as in
    `my.yaml@1f0c2a9b`. The name of the returned space has the hash of the table's content and not
    its folder. So the text of a policy, and the ids of its stages, change only with the content of
    the table. The path of a user's table is remembered for this process and those that it starts.

    Raises:
        UserError: an unknown name, a missing file, a wrong table, or the hash of another content.
    """
    if name in SPACES:
        if (TABLES / f"{name}.yaml").exists():
            raise UserError(
                f"{TABLES / name}.yaml has the name of a space that is built in: give it another "
                "name."
            )
        return SPACES[name]
    hashed = _HASHED.fullmatch(name)
    path, expected = (hashed["path"], hashed["digest"]) if hashed else (name, "")
    shipped = {table.stem: table for table in sorted(TABLES.glob("*.yaml"))}
    if path in shipped:
        space, label = load_space(shipped[path]), path
    elif path.endswith(SUFFIXES):
        space, label = _find_table(Path(path), expected), Path(path).name
    else:
        raise UserError(
            f"unknown augmentation space '{name}'{nearest(name, [*SPACES, *shipped])}; "
            "a table of your own is named by its path, ending in .yaml or .json."
        )
    digest = space.name.rpartition("@")[2]
    if expected not in ("", digest):
        raise UserError(
            f"{path} has changed: the policy was made for @{expected}, and the file is @{digest} "
            "now; restore it, or give the new table another name."
        )
    return replace(space, name=f"{label}@{digest}")


def _find_table(path: Path, expected: str) -> Space:
    """Return the space of a user's table.

    In the text of a policy, a table has a hash and no folder. So for a name with a hash, the tables
    that were read before are searched first.
    """
    if expected:
        same_name = [f for f in table_files() if f.name == path.name and f.is_file()]
        for file in same_name:
            space = load_space(file)
            if space.name.endswith(f"@{expected}"):
                return space
        if same_name and not path.is_file():
            path = same_name[0]  # it has another hash, which the caller reports
    space = load_space(path)
    remember_tables([user_path(str(path), "policy")])
    return space


def load_space(path: Path) -> Space:
    """Return the space of a YAML or JSON table (docs/augment.md shows one).

    A table cannot run code. Raises `UserError` for a missing file, or a table with a mistake, which
    the message explains.
    """
    return _space(path, read_text(user_path(str(path), "policy"), "augmentation space", _LONGEST))


# Parsing YAML takes milliseconds, and thousands of trials of a grid name the same few tables. The
# content is part of the cache's key, so a table that was edited is parsed again.
@functools.lru_cache(maxsize=256)
def _space(path: Path, text: str) -> Space:
    table = plain(text, str(path), _LONGEST, _DEEPEST)  # JSON is YAML, too
    if not isinstance(table, dict) or not isinstance(table.get("ops"), dict) or not table["ops"]:
        raise UserError(f"{path}: a space is a mapping with a key `ops`, which has a row per op.")
    _check_keys(table, ("source", "ops", "n", "p", "spread", "fill"), str(path))
    rows = tuple(_row(str(op), entry or {}, path) for op, entry in table["ops"].items())
    source = table.get("source", str(path))
    if not isinstance(source, str):
        raise UserError(f"{path}: source is a text that names the origin of the ranges.")
    n, p, spread = table.get("n", 2), table.get("p", 1.0), table.get("spread", "fixed")
    if isinstance(n, bool) or not isinstance(n, int) or not 1 <= n <= MOST_OPS:
        raise UserError(f"{path}: n is the number of ops, from 1 to {MOST_OPS}, not {n!r}.")
    if isinstance(p, bool) or not isinstance(p, int | float) or not 0 < p <= 1:
        raise UserError(f"{path}: p is the probability of each op, above 0 up to 1, not {p!r}.")
    if spread not in ("fixed", "uniform") and not _is_share(spread):
        raise UserError(
            f"{path}: spread is fixed, uniform or a standard deviation above 0 up to 1, not "
            f"{spread!r}."
        )
    fill = table.get("fill", (0, 0, 0))
    fill = tuple(fill) if isinstance(fill, list | tuple) else (fill,) * 3
    check_fill(fill, str(path))
    # The keys are not sorted before hashing: a draw is a position in the table, so the same rows in
    # another order are another space.
    digest = hashlib.sha256(json.dumps(table).encode()).hexdigest()
    name = f"{path}@{digest[:8]}"
    return Space(name, source, rows, n=n, p=float(p), spread=spread, fill=fill)


def _is_share(value: object) -> bool:
    return not isinstance(value, bool) and isinstance(value, int | float) and 0 < value <= 1


def _check_keys(entry: Mapping[str, Any], keys: tuple[str, ...], where: str) -> None:
    for key in entry:
        if key not in keys:
            raise UserError(f"{where}: unknown key '{key}'{nearest(str(key), keys)}.")


def _row(name: str, entry: Mapping[str, Any], path: Path) -> Row:
    where = f"{path}: ops.{name}"
    op = find_op(name, str(path))
    if op.kind == Kind.BOX and op.relative_to is None:
        raise UserError(f"{where}: the boxes of a space are shares of the side: write CutoutRel.")
    if not isinstance(entry, Mapping):
        raise UserError(f"{where}: a row is a mapping such as {{values: [0, 30], signed: true}}.")
    _check_keys(entry, ("values", "signed", "rounding"), where)
    if op.kind == Kind.IDENTITY:
        return Row(name)
    values, signed = entry.get("values"), entry.get("signed", False)
    rounding = entry.get("rounding", "nearest" if op.whole else "none")
    if not isinstance(values, list) or len(values) < 2:
        raise UserError(
            f"{where}: `values` lists the values from m = 0 to m = 1, two or more ({op.unit})."
        )
    if not isinstance(signed, bool):
        raise UserError(f"{where}: signed is true or false, not {signed!r}.")
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise UserError(f"{where}: {value!r} is not a number.")
        check_value(op, value, where)
        if signed:
            check_value(op, 2 * values[0] - value, f"{where}, mirrored")
    change = np.subtract(values, op.neutral)
    if change.min() < 0 < change.max() or (np.diff(np.abs(change)) < 0).any():
        raise UserError(
            f"{where}: strength must grow with m, so the values must move away from "
            f"{op.neutral:g}, which changes nothing, to one side; {values} do not."
        )
    if signed and change[0]:
        raise UserError(
            f"{where}: `signed` mirrors about the first value, so begin at {op.neutral:g}, which "
            f"changes nothing, not at {values[0]:g}."
        )
    if rounding not in ROUNDINGS or (op.whole and rounding == "none"):
        choice = nearest(str(rounding), ROUNDINGS[1:])
        raise UserError(f"{where}: rounding is not '{rounding}'{choice}.")
    return Row(name, tuple(float(value) for value in values), signed, rounding)
