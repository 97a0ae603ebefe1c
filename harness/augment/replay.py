"""The reference: the records of a plan done by Pillow, one image at a time.

    replay(image, plan.records(i, size=(height, width)))

`apply` gives the same pixels; the tests hold it to that. Also the place to see what an op means.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from PIL import Image, ImageEnhance, ImageOps

from harness.augment.ops import find_op
from harness.augment.plan import Colour, Record

_RESAMPLING = {"nearest": Image.Resampling.NEAREST, "bilinear": Image.Resampling.BILINEAR}
_MATRICES: dict[str, Callable[[float], tuple[float, ...]]] = {
    "ShearX": lambda v: (1, v, 0, 0, 1, 0),
    "ShearY": lambda v: (1, 0, 0, v, 1, 0),
    "TranslateX": lambda v: (1, 0, v, 0, 1, 0),
    "TranslateY": lambda v: (1, 0, 0, 0, 1, v),
}


def _solarize_add(image: Image.Image, addend: int) -> Image.Image:
    """As in timm's auto_augment: below 128 the addend is added, up to 255."""
    return image.point([min(255, v + addend) if v < 128 else v for v in range(256)] * 3)


_POINTWISE: dict[str, Callable[[Image.Image, Any], Image.Image]] = {
    "Identity": lambda image, v: image,
    "Brightness": lambda image, v: ImageEnhance.Brightness(image).enhance(v),
    "Color": lambda image, v: ImageEnhance.Color(image).enhance(v),
    "Contrast": lambda image, v: ImageEnhance.Contrast(image).enhance(v),
    "Sharpness": lambda image, v: ImageEnhance.Sharpness(image).enhance(v),
    "Posterize": ImageOps.posterize,
    "Solarize": ImageOps.solarize,
    "SolarizeAdd": _solarize_add,
    "AutoContrast": lambda image, v: Image.blend(image, ImageOps.autocontrast(image), v),
    "Equalize": lambda image, v: Image.blend(image, ImageOps.equalize(image), v),
    "Invert": lambda image, v: Image.blend(image, ImageOps.invert(image), v),
}


def replay(
    image: Image.Image,
    records: Sequence[Record],
    fill: Colour = (0, 0, 0),
    interpolation: str = "nearest",
) -> Image.Image:
    """An RGB image after `records`, in order. Raises `UserError` for an unknown op."""
    resample = _RESAMPLING[interpolation]
    for name, value in records:
        if name in _POINTWISE:
            image = _POINTWISE[name](image, value)
        elif name in _MATRICES:
            data = _MATRICES[name](value)
            method = Image.Transform.AFFINE
            image = image.transform(image.size, method, data, resample, fillcolor=fill)
        elif name == "Rotate":
            image = image.rotate(value, resample, fillcolor=fill)
        elif name == "Cutout":
            image = image.copy()
            image.paste(fill, value)
        else:
            find_op(name, "a record")
            raise NotImplementedError(f"{name} is in the op table and not here")
    return image
