"""The reference: Pillow applies the records of a plan to one image at a time.

    replay(image, plan.records(i, size=(height, width)))

`apply` gives the same pixels; the tests compare the two for every op of the table.
"""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from harness.augment.ops import Colour, find_op
from harness.augment.plan import Record
from harness.errors import UserError

_RESAMPLING = {"nearest": Image.Resampling.NEAREST, "bilinear": Image.Resampling.BILINEAR}


def replay(
    image: Image.Image,
    records: Sequence[Record],
    fill: Colour = (0, 0, 0),
    interpolation: str = "nearest",
) -> Image.Image:
    """Return an RGB image to which `records` were applied in order.

    Raises `UserError` for an unknown op, or for an op whose value is a share of the side.
    """
    for name, value in records:
        op = find_op(name, "a record")
        if op.pillow is None:
            raise UserError(
                f"a record: {name} is a {op.unit}; Pillow takes {op.relative_to}, which "
                "plan.records(i, size=(height, width)) gives."
            )
        image = op.pillow(image, value, fill, _RESAMPLING[interpolation])
    return image
