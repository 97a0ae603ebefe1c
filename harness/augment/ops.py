"""The op table: what each op does to pixels, stated as one of a few kinds with parameters.

An op is a function and a row of `OPS`. Most reduce to a lookup table of 256 entries or to an affine
map; those need nothing else, because both executors (`kernels.py`, `compiled.py`) work by kind and
get the parameters from here. Values are those that Pillow takes (DESIGN: degrees of `Image.rotate`,
factors of `ImageEnhance`, bits, thresholds, pixels; for AutoContrast, Equalize and Invert the weight
of the blend with the input). Pillow is the reference, to the bit: `replay.py` does the same by PIL.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from harness.errors import UserError, nearest

Floats = NDArray[np.float64]
Tables = NDArray[np.uint8]


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
    none). `table` maps values [n] to tables [n, 256]; `matrix` maps (value, height, width) to the six
    numbers of Pillow's AFFINE data. `relative_to` names the op in pixels of which this one is the
    version in shares of the side (timm's `Rel` names); only size turns it into that.
    """

    name: str
    kind: Kind
    unit: str
    low: float = -math.inf
    high: float = math.inf
    neutral: float | None = None
    whole: bool = False  # the value must be a whole number
    table: Callable[[Floats], Tables] | None = None
    matrix: Callable[[float, int, int], tuple[float, ...]] | None = None
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
    return np.where(_RAMP < threshold[:, None], _RAMP, 255 - _RAMP).astype(np.uint8)


def _solarize_add(addend: Floats) -> Tables:
    raised = np.minimum(_RAMP + addend.astype(np.int64)[:, None], 255)
    return np.where(_RAMP < 128, raised, _RAMP).astype(np.uint8)


def _invert(weight: Floats) -> Tables:
    return blend(_RAMP, 255 - _RAMP, weight[:, None])


def _rotate(degrees: float, height: int, width: int) -> tuple[float, ...]:
    """`Image.rotate` of Pillow: about (width / 2, height / 2), sine and cosine cut to 15 digits."""
    angle = -math.radians(degrees % 360.0)
    a, b = round(math.cos(angle), 15), round(math.sin(angle), 15)
    d, e = round(-math.sin(angle), 15), round(math.cos(angle), 15)
    x, y = width / 2, height / 2
    return a, b, (a * -x + b * -y + 0.0) + x, d, e, (d * -x + e * -y + 0.0) + y


_SHARE = {"low": -1.0, "high": 1.0, "neutral": 0.0}
_BLEND = {"low": 0.0, "high": 1.0, "neutral": 0.0, "unit": "weight of the blend"}
_FACTOR = {"low": 0.0, "neutral": 1.0, "unit": "factor"}

# Position in this tuple is the op's code inside a plan; saved plans carry names.
_ROWS = (
    Op("Identity", Kind.IDENTITY, unit="none"),
    Op("ShearX", Kind.WARP, "pixels of x per pixel of y", neutral=0.0,
       matrix=lambda v, h, w: (1, v, 0, 0, 1, 0)),
    Op("ShearY", Kind.WARP, "pixels of y per pixel of x", neutral=0.0,
       matrix=lambda v, h, w: (1, 0, 0, v, 1, 0)),
    Op("TranslateX", Kind.WARP, "pixels", neutral=0.0, matrix=lambda v, h, w: (1, 0, v, 0, 1, 0)),
    Op("TranslateY", Kind.WARP, "pixels", neutral=0.0, matrix=lambda v, h, w: (1, 0, 0, 0, 1, v)),
    Op("TranslateXRel", Kind.WARP, unit="share of the width", relative_to="TranslateX", **_SHARE),
    Op("TranslateYRel", Kind.WARP, unit="share of the height", relative_to="TranslateY", **_SHARE),
    Op("Rotate", Kind.WARP, "degrees", neutral=0.0, matrix=_rotate),
    Op("Brightness", Kind.TABLE, table=_brightness, **_FACTOR),
    Op("Color", Kind.COLOR, **_FACTOR),
    Op("Contrast", Kind.CONTRAST, **_FACTOR),
    Op("Sharpness", Kind.SHARPNESS, **_FACTOR),
    Op("Posterize", Kind.TABLE, "bits kept", 1, 8, 8, whole=True, table=_posterize),
    Op("Solarize", Kind.TABLE, "first value inverted", 0, 256, 256, table=_solarize),
    Op("SolarizeAdd", Kind.TABLE, "added below 128", 0, 255, 0, whole=True, table=_solarize_add),
    Op("AutoContrast", Kind.AUTOCONTRAST, **_BLEND),
    Op("Equalize", Kind.EQUALIZE, **_BLEND),
    Op("Invert", Kind.TABLE, table=_invert, **_BLEND),
    Op("Cutout", Kind.BOX, "left, top, right, bottom in pixels"),
    Op("CutoutRel", Kind.BOX, "share of the side", 0.0, 2.0, 0.0, relative_to="Cutout"),
)  # fmt: skip

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
    if not math.isfinite(value) or not op.low <= value <= op.high:
        raise UserError(
            f"{where}: {op.name} takes {op.unit} from {op.low:g} to {op.high:g}, not {value!r}."
        )
    if op.whole and value != int(value):
        raise UserError(f"{where}: {op.name} takes {op.unit} as a whole number, not {value!r}.")
