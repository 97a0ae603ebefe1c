"""The op table: what each op does to pixels, stated as one of a few kinds with parameters.

An op is a function and a row of `OPS`. Most reduce to a lookup table of 256 entries or to an
affine map; those need nothing else, because both executors (`kernels.py`, `compiled.py`) work by
kind and get the parameters from here. Values are those that Pillow takes: degrees of
`Image.rotate`, numbers of the AFFINE data for shears and translations, factors of `ImageEnhance`,
bits, thresholds; for AutoContrast, Equalize and Invert the weight of the blend with the input.
Pillow is the reference, to the bit: `replay.py` does the same by its functions.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from harness.errors import UserError, nearest

Floats = NDArray[np.float64]
Tables = NDArray[np.uint8]
Matrix = Callable[[Floats, int, int], Floats]


class Kind(IntEnum):
    """What an executor has to be able to do."""

    IDENTITY = 0
    TABLE = 1  # one table for all channels, known before the image is
    WARP = 2  # affine map from output to input pixels
    COLOR = 3  # blend with the grey image
    CONTRAST = 4  # blend with the mean grey: a table that depends on the image
    AUTOCONTRAST = 5  # a table for each channel that depends on its histogram
    EQUALIZE = 6  # likewise
    SHARPNESS = 7  # blend with the smoothed image
    BOX = 8  # a rectangle of the fill colour


@dataclass(frozen=True)
class Op:
    """A row of the table.

    `low` and `high` bound the value, `neutral` is the value that changes nothing (None: there is
    none). `table` maps values [n] to tables [n, 256]; `matrix` maps (values [n], height, width) to
    Pillow's AFFINE data [n, 6]. `relative_to` names the op in pixels that this one, in shares of
    the side, becomes once the size is known (timm's `Rel` names).
    """

    name: str
    kind: Kind
    unit: str
    low: float = -math.inf
    high: float = math.inf
    neutral: float | None = None
    whole: bool = False  # the value must be a whole number
    table: Callable[[Floats], Tables] | None = None
    matrix: Matrix | None = None
    relative_to: str | None = None


def blend(low: NDArray[np.generic], high: NDArray[np.generic], weight: Floats) -> Tables:
    """Pillow's `Image.blend`: low + weight (high - low) in single precision, clipped, truncated."""
    start = low.astype(np.float32)
    mixed = start + weight.astype(np.float32) * (high.astype(np.float32) - start)
    return np.asarray(np.clip(mixed, 0, 255).astype(np.uint8))


_RAMP = np.arange(256)[None, :]


def _brightness(factor: Floats) -> Tables:
    return blend(np.zeros_like(_RAMP), _RAMP, factor[:, None])


def _posterize(bits: Floats) -> Tables:
    mask = 256 - (1 << (8 - bits.astype(np.int64)))
    return (_RAMP & mask[:, None]).astype(np.uint8)


def _solarize(threshold: Floats) -> Tables:
    return np.where(threshold[:, None] > _RAMP, _RAMP, 255 - _RAMP).astype(np.uint8)


def _solarize_add(addend: Floats) -> Tables:
    raised = np.minimum(_RAMP + addend.astype(np.int64)[:, None], 255)
    return np.where(_RAMP < 128, raised, _RAMP).astype(np.uint8)


def _invert(weight: Floats) -> Tables:
    return blend(_RAMP, 255 - _RAMP, weight[:, None])


def _affine(*rows: Floats | float) -> Floats:
    """AFFINE data [n, 6] from its six numbers, each an array [n] or the same for all."""
    return np.stack(np.broadcast_arrays(*rows), axis=-1).astype(np.float64)


def _rotate(degrees: Floats, height: int, width: int) -> Floats:
    """`Image.rotate` of Pillow: about (width / 2, height / 2), sine and cosine cut to 15 digits."""
    angles = [-math.radians(value % 360.0) for value in degrees.tolist()]
    cos = np.array([round(math.cos(angle), 15) for angle in angles])
    sin = np.array([round(math.sin(angle), 15) for angle in angles])
    x, y = width / 2, height / 2
    return _affine(cos, sin, (cos * -x + sin * -y) + x, -sin, cos, (-sin * -x + cos * -y) + y)


# Up to this side, and within the bounds below, Pillow maps coordinates in 16.16 fixed point.
LARGEST_SIDE = 8192


def _shear(name: str, unit: str, matrix: Matrix) -> Op:
    return Op(name, Kind.WARP, unit, low=-2.0, high=2.0, neutral=0.0, matrix=matrix)


def _translate(name: str, matrix: Matrix) -> Op:
    return Op(name, Kind.WARP, "pixels", low=-16384, high=16384, neutral=0.0, matrix=matrix)


def _share(name: str, unit: str) -> Op:
    pixels = name.removesuffix("Rel")
    return Op(name, Kind.WARP, unit, low=-1.0, high=1.0, neutral=0.0, relative_to=pixels)


def _enhance(name: str, kind: Kind, table: Callable[[Floats], Tables] | None = None) -> Op:
    return Op(name, kind, "factor", low=0.0, high=1e6, neutral=1.0, table=table)  # fits float32


def _blended(name: str, kind: Kind, table: Callable[[Floats], Tables] | None = None) -> Op:
    return Op(name, kind, "weight of the blend", low=0.0, high=1.0, neutral=0.0, table=table)


# Position in this tuple is the op's code inside a plan; saved plans carry names.
_ROWS = (
    Op("Identity", Kind.IDENTITY, unit="none"),
    _shear("ShearX", "pixels of x per pixel of y", lambda v, h, w: _affine(1, v, 0, 0, 1, 0)),
    _shear("ShearY", "pixels of y per pixel of x", lambda v, h, w: _affine(1, 0, 0, v, 1, 0)),
    _translate("TranslateX", lambda v, h, w: _affine(1, 0, v, 0, 1, 0)),
    _translate("TranslateY", lambda v, h, w: _affine(1, 0, 0, 0, 1, v)),
    _share("TranslateXRel", "share of the width"),
    _share("TranslateYRel", "share of the height"),
    Op("Rotate", Kind.WARP, "degrees", neutral=0.0, matrix=_rotate),
    _enhance("Brightness", Kind.TABLE, _brightness),
    _enhance("Color", Kind.COLOR),
    _enhance("Contrast", Kind.CONTRAST),
    _enhance("Sharpness", Kind.SHARPNESS),
    Op("Posterize", Kind.TABLE, "bits kept", 1, 8, 8, whole=True, table=_posterize),
    Op("Solarize", Kind.TABLE, "first value inverted", 0, 256, 256, table=_solarize),
    Op("SolarizeAdd", Kind.TABLE, "added below 128", 0, 255, 0, whole=True, table=_solarize_add),
    _blended("AutoContrast", Kind.AUTOCONTRAST),
    _blended("Equalize", Kind.EQUALIZE),
    _blended("Invert", Kind.TABLE, _invert),
    Op("Cutout", Kind.BOX, "left, top, right, bottom in pixels"),
    Op("CutoutRel", Kind.BOX, "share of the side", 0.0, 2.0, 0.0, relative_to="Cutout"),
)

OPS: dict[str, Op] = {op.name: op for op in _ROWS}
CODES: dict[str, int] = {op.name: code for code, op in enumerate(_ROWS)}
NAMES: tuple[str, ...] = tuple(OPS)


def find_op(name: str, where: str) -> Op:
    """The row called `name`; `where` is the subject of the error."""
    if name not in OPS:
        raise UserError(f"{where}: no op '{name}'{nearest(name, OPS)}.")
    return OPS[name]


def check_value(op: Op, value: float, where: str) -> None:
    """Raise `UserError` unless `value` is one that `op` takes."""
    if not abs(value) <= sys.float_info.max or not op.low <= value <= op.high:
        raise UserError(
            f"{where}: {op.name} takes {op.unit} from {op.low:g} to {op.high:g}, not {value!r}."
        )
    if op.whole and value != int(value):
        raise UserError(f"{where}: {op.name} takes {op.unit} as a whole number, not {value!r}.")
