"""A contact sheet of images at several magnitudes; `python -m harness.augment` draws it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from harness.augment.executors import apply
from harness.augment.ops import CODES, OPS, Kind
from harness.augment.plan import Plan
from harness.augment.policy import Policy, parse_policy, with_magnitude
from harness.errors import UserError

MAGNITUDES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
_TILE = 56  # pixels; smaller images are enlarged by a whole factor to at least this size
_GAP, _LABEL, _TEXT = 4, 110, 12  # pixels: between tiles, width of a label, height of text


def by_op(image: Tensor, policy_text: str) -> tuple[list[str], Tensor]:
    """Return labels, and tiles uint8 [ops, 1 + M, 3, H, W]: a row of tiles for each op alone.

    The first tile of a row is `image` unchanged; the others are for the M magnitudes. Signs are
    positive, and a cut-out box is in the middle. `policy_text` has no m.
    """
    policy = _at(policy_text, 0.0)
    rows = [row for row in policy.space.rows if OPS[row.op].kind != Kind.IDENTITY]
    if not rows:
        raise UserError(f"policy '{policy_text}' has no op to show: its space has only Identity.")
    tiles = []
    for row in rows:
        codes = np.full((1, len(MAGNITUDES)), CODES[row.op], dtype=np.uint8)
        values = row.at(np.array([MAGNITUDES]), np.ones((1, len(MAGNITUDES))))
        half_sides = 0.5 * values[..., None]
        boxes = 0.5 + half_sides * np.array([-1.0, -1.0, 1.0, 1.0])
        plan = Plan(codes, values, boxes, policy.fill, policy.interpolation)
        copies = image.expand(len(MAGNITUDES), *image.shape)
        tiles.append(torch.cat([image[None], apply(copies, plan)]))
    return [row.op for row in rows], torch.stack(tiles)


def by_sample(images: Tensor, ids: NDArray[np.int64], policy_text: str) -> tuple[list[str], Tensor]:
    """Return labels, and tiles uint8 [N, 1 + M, 3, H, W]: a row for each sample.

    The first tile of a row is the image unchanged; the others show the policy at the M magnitudes.
    The ops, signs and places of a sample are the same along its row; only the magnitude grows.
    """
    columns = [images]
    for magnitude in MAGNITUDES:
        columns.append(
            apply(images, _at(policy_text, magnitude).draw(seed=0, epoch=0, indices=ids))
        )
    return [f"sample {i}" for i in ids], torch.stack(columns, dim=1)


def compose(title: str, labels: Sequence[str], tiles: Tensor) -> Image.Image:
    """Return one picture of all tiles, with the magnitudes above and the labels to the left."""
    count, columns, _, height, width = tiles.shape
    zoom = max(1, -(-_TILE // max(height, width)))
    step_x, step_y = width * zoom + _GAP, height * zoom + _GAP
    top = 2 * (_TEXT + 2 * _GAP)
    sheet = Image.new("RGB", (_LABEL + columns * step_x, top + count * step_y), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(_TEXT)
    draw.text((_GAP, _GAP), title, "black", font)
    for column, heading in enumerate(("none", *(f"m = {m:g}" for m in MAGNITUDES))):
        draw.text((_LABEL + column * step_x, top - _TEXT - _GAP), heading, "black", font)
    for i, label in enumerate(labels):
        y = top + i * step_y
        draw.text((_GAP, y + (height * zoom - _TEXT) // 2), label, "black", font)
        for column in range(columns):
            pixels = np.ascontiguousarray(tiles[i, column].permute(1, 2, 0).numpy())
            size = (width * zoom, height * zoom)
            tile = Image.fromarray(pixels).resize(size, Image.Resampling.NEAREST)
            sheet.paste(tile, (_LABEL + column * step_x, y))
    return sheet


def _at(policy_text: str, magnitude: float) -> Policy:
    return parse_policy(with_magnitude(policy_text, magnitude))
