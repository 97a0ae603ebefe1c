"""The op table: one row states everything about an op, and a plug-in file can add a row.

A row holds the op's name, the range of its value, the value that changes nothing, how to apply the
op to a Pillow image, and how to apply it to tensors. Most ops are a lookup table of 256 entries or
an affine map. Their rows give a function that computes the table or the map, and every executor can
run them. The rows of other ops give a torch kernel.

Values are those that Pillow takes: degrees of `Image.rotate`; numbers of the AFFINE data for shears
and translations; factors of `ImageEnhance`; bits; thresholds; for AutoContrast, Equalize and Invert
the weight of the blend with the input (1 is the op itself). Pillow is the reference: `replay.py`
calls the `pillow` function of each row, and all executors give the same pixels, to the bit.

This module is imported where policies are planned, so it imports neither torch nor Pillow before an
op runs.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from harness.errors import UserError, nearest
from harness.plugins import load_plugins

if TYPE_CHECKING:
    from PIL.Image import Image, Resampling
    from torch import Tensor

Colour = tuple[int, int, int]
Floats = NDArray[np.float64]
Tables = NDArray[np.uint8]
TableFunction = Callable[[Floats], Tables]
MatrixFunction = Callable[[Floats, int, int], Floats]
Kernel = Callable[["Tensor", "Tensor"], "Tensor"]
PillowFunction = Callable[["Image", Any, Colour, "Resampling"], "Image"]

_MOST_OPS = 256  # because the codes of ops are uint8 in a plan


class Kind(IntEnum):
    """How an executor runs an op."""

    IDENTITY = 0
    TABLE = 1  # a lookup table that depends on the value only; the same for all channels
    WARP = 2  # an affine map from output pixels to input pixels
    COLOR = 3  # blend with the grey image
    CONTRAST = 4  # blend with the mean grey: a table that depends on the image
    AUTOCONTRAST = 5  # a table per channel that depends on the image's histogram
    EQUALIZE = 6  # also a table per channel that depends on the image's histogram
    SHARPNESS = 7  # blend with the smoothed image
    BOX = 8  # a rectangle of the fill colour
    KERNEL = 9  # the row's torch kernel; only the plain torch executor runs it


@dataclass(frozen=True, kw_only=True)
class Op:
    """A row of the table.

    unit: what the value measures, for messages. low, high: bounds of the value. neutral: the value
    that changes nothing (NaN: there is none). whole: the value must be a whole number.
    pillow: (RGB image, value, fill colour, resampling) -> RGB image, the reference. Without it, the
    row's `table`, `matrix` or `kernel` is applied to the Pillow image.
    table, for TABLE: values float64 [n] -> tables uint8 [n, 256].
    matrix, for WARP: (values float64 [n], height, width) -> Pillow's AFFINE data float64 [n, 6].
    kernel, for all kinds but TABLE, WARP, BOX and IDENTITY: (images uint8 [n, 3, H, W], values
    float32 [n, 1, 1, 1]) -> images uint8 [n, 3, H, W], on the device of the images.
    relative_to: the op in pixels that replaces this op as soon as the image size is known. Values
    of this op are shares of `side`, or for boxes shares of both sides.
    """

    name: str
    kind: Kind
    unit: str
    low: float = -math.inf
    high: float = math.inf
    neutral: float = math.nan
    whole: bool = False
    pillow: PillowFunction | None = None
    table: TableFunction | None = None
    matrix: MatrixFunction | None = None
    kernel: Kernel | None = None
    relative_to: str | None = None
    side: Literal["", "width", "height"] = ""


OPS: dict[str, Op] = {}
"""The rows by name. A row's position is the op's code in a plan; nothing else depends on it."""
CODES: dict[str, int] = {}
_NEEDED_FIELD = {Kind.TABLE: "table", Kind.WARP: "matrix", Kind.KERNEL: "kernel"}


def register_op(op: Op) -> None:
    """Add a row to the table, for an op defined in a file outside this package.

    Raises:
        UserError: a name that is taken, a kind that only built-in ops have, a missing field, a
            `neutral` outside of the range, or a full table.
    """
    where = f"op '{op.name}'"
    if op.name in OPS:
        raise UserError(f"{where} is already registered: give the new op another name.")
    if op.kind not in _NEEDED_FIELD:
        valid = ", ".join(f"Kind.{kind.name}" for kind in _NEEDED_FIELD)
        raise UserError(f"{where}: {op.kind!r} is only for built-in ops; valid: {valid}.")
    field = _NEEDED_FIELD[op.kind]
    if getattr(op, field) is None:
        raise UserError(f"{where}: an op of Kind.{op.kind.name} needs the function `{field}`.")
    if not op.low <= op.neutral <= op.high:
        raise UserError(
            f"{where}: `neutral` is the value that changes nothing, from low={op.low:g} to "
            f"high={op.high:g}, not {op.neutral:g}."
        )
    if len(OPS) == _MOST_OPS:
        raise UserError(f"{where}: the table has {_MOST_OPS} ops, which is the most it can hold.")
    _add(op)


def _add(op: Op) -> None:
    if op.pillow is None and op.relative_to is None:
        op = replace(op, pillow=_derived_pillow(op))
    CODES[op.name] = len(OPS)
    OPS[op.name] = op


def find_op(name: str, where: str) -> Op:
    """Return the row called `name`, which a plug-in file may have registered.

    Raises `UserError` for an unknown name; `where` is the subject of its message.
    """
    if name not in OPS:
        load_plugins()
    if name not in OPS:
        raise UserError(f"{where}: unknown op '{name}'{nearest(name, OPS)}.")
    return OPS[name]


def check_value(op: Op, value: float, where: str) -> None:
    """Raise `UserError` unless `op` takes `value`."""
    # The first comparison is false for NaN, infinities, and whole numbers too large for a float.
    if not abs(value) <= sys.float_info.max or not op.low <= value <= op.high:
        raise UserError(
            f"{where}: {op.name} takes {op.unit} from {op.low:g} to {op.high:g}, not {value!r}."
        )
    if op.whole and value != int(value):
        raise UserError(f"{where}: {op.name} takes {op.unit} as a whole number, not {value!r}.")


# --- lookup tables ----------------------------------------------------------------------------

_RAMP = np.arange(256)[None, :]


def blend(low: NDArray[np.generic], high: NDArray[np.generic], weight: Floats) -> Tables:
    """Return low + weight (high - low) in float32, clipped to [0, 255] and truncated to uint8.

    This is `ImagingBlend` (Blend.c) of Pillow.
    """
    start = low.astype(np.float32)
    mixed = start + weight.astype(np.float32) * (high.astype(np.float32) - start)
    return np.asarray(np.clip(mixed, 0, 255).astype(np.uint8))


def _brightness(factor: Floats) -> Tables:
    """`ImageEnhance.Brightness`: blend with black."""
    return blend(np.zeros_like(_RAMP), _RAMP, factor[:, None])


def _posterize(bits: Floats) -> Tables:
    """`ImageOps.posterize`: keep the highest bits."""
    mask = 256 - (1 << (8 - bits.astype(np.int64)))
    return (_RAMP & mask[:, None]).astype(np.uint8)


def _solarize(threshold: Floats) -> Tables:
    """`ImageOps.solarize`: invert values from the threshold on."""
    return np.where(threshold[:, None] > _RAMP, _RAMP, 255 - _RAMP).astype(np.uint8)


def _solarize_add(addend: Floats) -> Tables:
    """`solarize_add` of timm 1.0.31 (auto_augment.py): add below 128, up to 255."""
    raised = np.minimum(_RAMP + addend.astype(np.int64)[:, None], 255)
    return np.where(_RAMP < 128, raised, _RAMP).astype(np.uint8)


def _invert(weight: Floats) -> Tables:
    """`ImageOps.invert`, blended with the input."""
    return blend(_RAMP, 255 - _RAMP, weight[:, None])


# --- affine maps ------------------------------------------------------------------------------


def _affine(*numbers: Floats | float) -> Floats:
    """Return AFFINE data [n, 6] from its six numbers, each an array [n] or the same for all."""
    return np.stack(np.broadcast_arrays(*numbers), axis=-1).astype(np.float64)


def _rotation(degrees: Floats, height: int, width: int) -> Floats:
    """`Image.rotate` of Pillow 13.

    The centre is (width / 2, height / 2). Pillow rounds sine and cosine to 15 digits.
    """
    angles = [-math.radians(value % 360.0) for value in degrees.tolist()]
    cos = np.array([round(math.cos(angle), 15) for angle in angles])
    sin = np.array([round(math.sin(angle), 15) for angle in angles])
    x, y = width / 2, height / 2
    return _affine(cos, sin, (cos * -x + sin * -y) + x, -sin, cos, (-sin * -x + cos * -y) + y)


# --- Pillow -----------------------------------------------------------------------------------


def _derived_pillow(op: Op) -> PillowFunction:
    """Return the function `pillow` of a row that has only a table, a matrix or a kernel."""

    def pillow(image: Image, value: float, fill: Colour, resample: Resampling) -> Image:
        from PIL import Image

        values = np.array([value], dtype=np.float64)
        if op.table is not None:
            return image.point(op.table(values)[0].tolist() * 3)
        if op.matrix is not None:
            data = op.matrix(values, image.height, image.width)[0].tolist()
            affine = Image.Transform.AFFINE
            return image.transform(image.size, affine, data, resample, fillcolor=fill)
        import torch

        assert op.kernel is not None
        pixels = torch.from_numpy(np.array(image).transpose(2, 0, 1)[None].copy())
        result = op.kernel(pixels, torch.tensor(values, dtype=torch.float32)[:, None, None, None])
        return Image.fromarray(result[0].permute(1, 2, 0).contiguous().numpy())

    return pillow


def _image_ops(name: str) -> PillowFunction:
    """Return the function `name` of `ImageOps`, which takes an image and a value."""

    def pillow(image: Image, value: float, *_: Any) -> Image:
        from PIL import ImageOps

        result: Image = getattr(ImageOps, name)(image, value)
        return result

    return pillow


def _pillow_solarize_add(image: Image, addend: int, *_: Any) -> Image:
    return image.point([min(255, v + addend) if v < 128 else v for v in range(256)] * 3)


def _pillow_rotate(image: Image, degrees: float, fill: Colour, resample: Resampling) -> Image:
    return image.rotate(degrees, resample, fillcolor=fill)


def _pillow_cutout(image: Image, box: tuple[int, int, int, int], fill: Colour, _: Any) -> Image:
    image = image.copy()
    image.paste(fill, box)
    return image


# --- rows -------------------------------------------------------------------------------------


def _torch_kernel(name: str) -> Kernel:
    """Return the function `name` of kernels.py; that module is imported when the op first runs."""

    def kernel(images: Tensor, values: Tensor) -> Tensor:
        from harness.augment import kernels

        function: Kernel = getattr(kernels, name)
        return function(images, values)

    return kernel


def _affine_op(name: str, unit: str, bound: float, data: Callable[[Any], tuple[Any, ...]]) -> Op:
    """Return the row of an op whose AFFINE data for the value `v` is `data(v)`."""

    def matrix(values: Floats, height: int, width: int) -> Floats:
        return _affine(*data(values))

    return Op(
        name=name, kind=Kind.WARP, unit=unit, low=-bound, high=bound, neutral=0.0, matrix=matrix
    )


def _share_op(name: str, side: Literal["width", "height"]) -> Op:
    """Return the row of a translation by a share of a side (named `...Rel` in timm)."""
    return Op(
        name=name, kind=Kind.WARP, unit=f"share of the {side}", low=-1.0, high=1.0, neutral=0.0,
        relative_to=name.removesuffix("Rel"), side=side,
    )  # fmt: skip


def _enhance_op(name: str, kind: Kind, table: TableFunction | None = None) -> Op:
    """Return the row of a class of `ImageEnhance`. Its value is a factor, and 1 changes nothing."""

    def pillow(image: Image, factor: float, *_: Any) -> Image:
        from PIL import ImageEnhance

        enhanced: Image = getattr(ImageEnhance, name)(image).enhance(factor)
        return enhanced

    kernel = None if table else _torch_kernel(name.lower())
    return Op(  # the upper bound keeps the products with pixel values finite in float32
        name=name, kind=kind, unit="factor", low=0.0, high=1e6, neutral=1.0, pillow=pillow,
        table=table, kernel=kernel,
    )  # fmt: skip


def _blended_op(name: str, kind: Kind, table: TableFunction | None = None) -> Op:
    """Return the row of a function of `ImageOps`, blended with the input."""

    def pillow(image: Image, weight: float, *_: Any) -> Image:
        from PIL import Image, ImageOps

        return Image.blend(image, getattr(ImageOps, name.lower())(image), weight)

    kernel = None if table else _torch_kernel(name.lower())
    return Op(
        name=name, kind=kind, unit="weight of the blend", low=0.0, high=1.0, neutral=0.0,
        pillow=pillow, table=table, kernel=kernel,
    )  # fmt: skip


for _op in (
    Op(name="Identity", kind=Kind.IDENTITY, unit="none", pillow=lambda image, *_: image),
    _affine_op("ShearX", "pixels of x per pixel of y", 2.0, lambda v: (1, v, 0, 0, 1, 0)),
    _affine_op("ShearY", "pixels of y per pixel of x", 2.0, lambda v: (1, 0, 0, v, 1, 0)),
    _affine_op("TranslateX", "pixels", 16384.0, lambda v: (1, 0, v, 0, 1, 0)),
    _affine_op("TranslateY", "pixels", 16384.0, lambda v: (1, 0, 0, 0, 1, v)),
    _share_op("TranslateXRel", "width"),
    _share_op("TranslateYRel", "height"),
    Op(
        name="Rotate", kind=Kind.WARP, unit="degrees", neutral=0.0, pillow=_pillow_rotate,
        matrix=_rotation,
    ),
    _enhance_op("Brightness", Kind.TABLE, _brightness),
    _enhance_op("Color", Kind.COLOR),
    _enhance_op("Contrast", Kind.CONTRAST),
    _enhance_op("Sharpness", Kind.SHARPNESS),
    Op(
        name="Posterize", kind=Kind.TABLE, unit="bits kept", low=1, high=8, neutral=8, whole=True,
        pillow=_image_ops("posterize"), table=_posterize,
    ),
    Op(
        name="Solarize", kind=Kind.TABLE, unit="first value inverted", low=0, high=256,
        neutral=256, pillow=_image_ops("solarize"), table=_solarize,
    ),
    Op(
        name="SolarizeAdd", kind=Kind.TABLE, unit="added below 128", low=0, high=255, neutral=0,
        whole=True, pillow=_pillow_solarize_add, table=_solarize_add,
    ),
    _blended_op("AutoContrast", Kind.AUTOCONTRAST),
    _blended_op("Equalize", Kind.EQUALIZE),
    _blended_op("Invert", Kind.TABLE, _invert),
    Op(
        name="Cutout", kind=Kind.BOX, unit="left, top, right, bottom in pixels",
        pillow=_pillow_cutout,
    ),
    Op(
        name="CutoutRel", kind=Kind.BOX, unit="share of the side", low=0.0, high=2.0, neutral=0.0,
        relative_to="Cutout",
    ),
):  # fmt: skip
    _add(_op)
