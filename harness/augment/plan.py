"""A plan: the ops and their values for each sample of a batch, as small arrays on the host.

    plan = parse_policy("randaug(n=2, m=0.3)").draw(seed=0, epoch=0, indices=np.arange(4))
    print(plan); plan.records(3, size=(32, 32))  # [("TranslateX", 4.0), ("Solarize", 179.2)]
    Plan.of([[("Rotate", 12.4)], [("Posterize", 4), ("Color", 1.3)]])

The values of a plan have their signs. Shares of the side stay shares (`TranslateXRel`), because a
policy is drawn before the image size is known; `records` and `apply` turn them into pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.augment.ops import CODES, OPS, Colour, Kind, Op, check_value, find_op
from harness.errors import UserError, nearest

INTERPOLATIONS = ("nearest", "bilinear")
Record = tuple[str, Any]
"""An op and its value in Pillow's units; the value of Cutout is a box."""


@dataclass(frozen=True, eq=False)
class Plan:
    """Ops and their values for N samples; each sample gets one op of each layer, in order.

    ops: uint8 [layers, N], codes of ops, which are positions in the op table. values: float64
    [layers, N], in Pillow's units, or shares for ops that are `relative_to` another. boxes: float64
    [layers, N, 4], (left, top, right, bottom) of Cutout in pixels, of CutoutRel in shares of the
    sides; None if nothing is cut out.
    """

    ops: NDArray[np.uint8]
    values: NDArray[np.float64]
    boxes: NDArray[np.float64] | None = None
    fill: Colour = field(default=(0, 0, 0))
    interpolation: str = "nearest"

    def __post_init__(self) -> None:
        if self.interpolation not in INTERPOLATIONS:
            raise UserError(
                f"a plan's interpolation is '{self.interpolation}'"
                f"{nearest(self.interpolation, INTERPOLATIONS)}."
            )
        check_fill(self.fill, "a plan")
        ops, values, boxes = self.ops, self.values, self.boxes
        if not isinstance(ops, np.ndarray) or ops.dtype != np.uint8 or ops.ndim != 2:
            raise UserError(
                "a plan's ops are an array uint8 [layers, N]; use Plan.of to write a plan by hand."
            )
        if not isinstance(values, np.ndarray) or values.shape != ops.shape:
            raise UserError(
                f"a plan's ops and values do not fit: the ops are for {ops.shape[0]} layers and "
                f"{ops.shape[1]} samples, so give values of the same shape."
            )
        if ops.max(initial=0) >= len(OPS):
            raise UserError(f"a plan's ops are positions in the op table, below {len(OPS)}.")
        if boxes is None and _has_boxes(ops):
            raise UserError(
                "a plan's boxes are missing, although an op cuts out a box: give four edges for "
                "each op."
            )
        if boxes is not None and boxes.shape != (*ops.shape, 4):
            raise UserError("a plan's boxes do not fit: give four edges for each op.")

    def __len__(self) -> int:
        return int(self.ops.shape[1])

    @property
    def layers(self) -> int:
        """The number of ops of each sample, Identity included."""
        return int(self.ops.shape[0])

    @classmethod
    def of(
        cls,
        samples: Sequence[Sequence[Record]],
        fill: Colour = (0, 0, 0),
        interpolation: str = "nearest",
    ) -> Plan:
        """Return a plan written by hand: for each sample its ops, in order, in Pillow's units.

        Raises `UserError` for an unknown op or a value that the op does not take.
        """
        for i, records in enumerate(samples):
            if isinstance(records, str) or not isinstance(records, Sequence):
                raise UserError(
                    f"sample {i} of a plan is a list of records such as "
                    f'("Rotate", 12.4), not {records!r}.'
                )
        shape = (max((len(records) for records in samples), default=0), len(samples))
        ops = np.full(shape, CODES["Identity"], dtype=np.uint8)
        values = np.zeros(shape)
        boxes = np.zeros((*shape, 4))
        for i, records in enumerate(samples):
            for layer, record in enumerate(records):
                where = f"sample {i} of a plan"
                name, value = _record(record, where)
                op = find_op(name, where)
                ops[layer, i] = CODES[name]
                if op.kind == Kind.BOX and op.relative_to is not None:
                    raise UserError(
                        f"{where}: {name} does not say where its box is; give {op.relative_to} a "
                        "box."
                    )
                if op.kind == Kind.BOX:
                    boxes[layer, i] = _box(value, op, where)
                elif op.kind != Kind.IDENTITY:
                    values[layer, i] = _number(value, op, where)
        return cls(ops, values, boxes if _has_boxes(ops) else None, fill, interpolation)

    def take(self, samples: slice | NDArray[np.int64]) -> Plan:
        """Return the plan of the chosen samples."""
        ops, values = self.ops[:, samples], self.values[:, samples]
        boxes = None if self.boxes is None else self.boxes[:, samples]
        return Plan(ops, values, boxes, self.fill, self.interpolation)

    def sized(self, height: int, width: int) -> Plan:
        """Return the same plan with shares of the side turned into pixels.

        Translations become whole pixels (see `in_pixels`); boxes are rounded and clipped to the
        image.
        """
        ops, values = in_pixels(self.ops, self.values, height, width)
        boxes = self.boxes
        if boxes is not None:
            sides = np.array([width, height, width, height], dtype=np.float64)
            relative = (self.ops != ops)[..., None]
            boxes = np.where(relative, np.floor(boxes * sides + 0.5), boxes)
            boxes = np.clip(boxes, 0, sides)
        return Plan(ops, values, boxes, self.fill, self.interpolation)

    def records(self, i: int, size: tuple[int, int] | None = None) -> list[Record]:
        """Return the records of sample `i` without Identity: [(op, value in Pillow's units), ...].

        size: (height, width). The value of Cutout is its box (left, top, right, bottom).

        Raises:
            UserError: a sample that the plan does not have, or no `size` although the value of an
                op is a share of the side.
        """
        if not -len(self) <= i < len(self):
            raise UserError(
                f"a plan of {len(self)} samples has samples 0 to {len(self) - 1}, not {i}."
            )
        one = self.take(np.array([i]))
        if size is not None:
            one = one.sized(*size)
        records: list[Record] = []
        rows = list(OPS.values())
        for layer, code in enumerate(one.ops[:, 0]):
            op = rows[code]
            if op.kind == Kind.IDENTITY:
                continue
            if op.relative_to is not None:
                raise UserError(
                    f"sample {i} has {op.name}, which is a {op.unit}: give the image size, as in "
                    "plan.records(i, size=(height, width))."
                )
            if op.kind == Kind.BOX:
                assert one.boxes is not None
                records.append((op.name, tuple(int(edge) for edge in one.boxes[layer, 0])))
            else:
                value = float(one.values[layer, 0])
                records.append((op.name, int(value) if op.whole else value))
        return records

    def __str__(self) -> str:
        """Return a line for each sample: `3: Rotate -9 degrees; Posterize 7 bits kept`."""
        lines = [f"{len(self)} samples, fill {self.fill}, {self.interpolation}"]
        rows = list(OPS.values())
        for i in range(len(self)):
            steps = []
            for layer, code in enumerate(self.ops[:, i]):
                op = rows[code]
                if op.kind == Kind.IDENTITY:
                    continue
                value = f"{self.values[layer, i]:.6g}"
                if op.kind == Kind.BOX and self.boxes is not None:
                    value = "({})".format(", ".join(f"{edge:.4g}" for edge in self.boxes[layer, i]))
                steps.append(f"{op.name} {value} {op.unit}")
            lines.append(f"{i}: {'; '.join(steps) or 'unchanged'}")
        return "\n".join(lines)


def in_pixels(
    ops: NDArray[np.uint8], values: NDArray[np.float64], height: int, width: int
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Return ops and values with ops in shares of the side replaced by ops in pixels.

    ops, values: of any equal shape. A translation is truncated to whole pixels, as in RandAugment
    of torchvision 0.29.
    """
    pixel_ops, pixel_values = ops.copy(), values.copy()
    for name, op in OPS.items():
        if op.relative_to is None:
            continue
        is_op = ops == CODES[name]
        pixel_ops[is_op] = CODES[op.relative_to]
        if op.side:
            side = width if op.side == "width" else height
            pixel_values[is_op] = np.trunc(values[is_op] * side)
    return pixel_ops, pixel_values


def _has_boxes(ops: NDArray[np.uint8]) -> bool:
    codes = [CODES[name] for name, op in OPS.items() if op.kind == Kind.BOX]
    return bool(np.isin(ops, codes).any())


def check_fill(fill: Sequence[int], where: str) -> None:
    """Raise `UserError` unless `fill` is three values from 0 to 255."""
    if len(fill) != 3 or not all(type(v) is int and 0 <= v <= 255 for v in fill):
        raise UserError(f"{where}: a fill colour is three whole numbers from 0 to 255, not {fill}.")


def _record(record: object, where: str) -> Record:
    if isinstance(record, tuple | list) and len(record) == 2 and isinstance(record[0], str):
        return record[0], record[1]
    raise UserError(f'{where}: a record is a pair such as ("Rotate", 12.4), not {record!r}.')


def _number(value: object, op: Op, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        raise UserError(f"{where}: {op.name} takes a number, not {value!r}.")
    check_value(op, value, where)  # type: ignore[arg-type]
    return float(value)


def _box(value: object, op: Op, where: str) -> tuple[int, ...]:
    if (
        not isinstance(value, Sequence)
        or len(value) != 4
        or not all(isinstance(edge, int | np.integer) for edge in value)
        or not (0 <= value[0] <= value[2] < 1 << 30 and 0 <= value[1] <= value[3] < 1 << 30)
    ):
        raise UserError(
            f"{where}: {op.name} takes a box (left, top, right, bottom) in pixels, not {value!r}."
        )
    return tuple(int(edge) for edge in value)
