"""Draws are those of stored results, and do not depend on the order of the op table."""

import hashlib

import numpy as np
import torch

from harness.augment.executors import apply
from harness.augment.ops import CODES, OPS, Kind, Op
from harness.augment.plan import Plan
from harness.augment.policy import parse_policy

# SHA-256 of plans with the names of ops, because codes depend on the order of the op table. Stored
# results were trained on exactly these draws, so the draws must not change.
DRAWN = {
    "randaug": "45b6004b0429b065",
    "randaug_strict": "36c9eca1bbff6dd8",
    "randaug_timm_inc": "2883f1c1ed63f7d4",
    "trivial_wide": "0d96c156317484c9",
    "uniform": "0cafd7e2098e3f64",
    "augmix": "c1bf95ed3c9427c6",
    "autoaugment_imagenet": "b869f6b3f7ebde5a",
    "autoaugment_cifar10": "b3e84be4051198a6",
}


def drawn_digest(name):
    digest, names = hashlib.sha256(), np.array(list(OPS))
    for spread in ("fixed", "uniform"):
        for m in (0.3, 1.0):
            plan = parse_policy(f"{name}(m={m}, spread={spread})").draw(1, 2, np.arange(5, 205))
            digest.update(" ".join(names[plan.ops].ravel()).encode())
            for part in (plan.values, plan.boxes):
                digest.update(b"" if part is None else np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()[:16]


def test_draws_are_those_of_stored_results():
    assert {name: drawn_digest(name) for name in DRAWN} == DRAWN


def set_op_table(rows):
    OPS.clear()
    OPS.update({row.name: row for row in rows})
    CODES.clear()
    CODES.update({name: code for code, name in enumerate(OPS)})


def test_draws_and_pixels_do_not_depend_on_the_order_of_the_op_table():
    images = torch.from_numpy(
        np.random.default_rng(0).integers(0, 256, (60, 3, 9, 7), dtype=np.uint8)
    )
    records = [[("Rotate", 9.0)], [], [("Cutout", (1, 1, 4, 5)), ("Equalize", 1.0)]] * 20

    def pixels():
        plans = [parse_policy(f"{name}(m=0.7)").draw(1, 2, np.arange(60)) for name in DRAWN]
        return [apply(images, plan) for plan in (*plans, Plan.of(records))]

    before, rows = pixels(), list(OPS.values())
    try:
        set_op_table([Op(name="New", kind=Kind.TABLE, unit="none", neutral=0.0), *reversed(rows)])
        assert {name: drawn_digest(name) for name in DRAWN} == DRAWN
        assert all(torch.equal(one, other) for one, other in zip(before, pixels(), strict=True))
    finally:
        set_op_table(rows)
