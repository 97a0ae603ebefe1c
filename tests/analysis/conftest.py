"""Planted truths: rows whose best magnitude is known."""

import random

import pandas as pd
import pytest

from analysis import rows

MAGNITUDES = ("none", 0.2, 0.5, 0.8)


def planted_frame(curves=None, seeds=3, spread=0.01, seed=0, magnitudes=MAGNITUDES, **constant):
    """`curves[width]` is the mean accuracy at each magnitude; `spread` is that of both splits."""
    chance = random.Random(seed)
    curves = curves or {0.5: (0.80, 0.82, 0.78, 0.70), 2.0: (0.85, 0.87, 0.90, 0.88)}
    made = [
        {
            "grid": "planted",
            "trial": f"{width}-{magnitude}-{s}",
            "state": "done",
            "family": "cifar_resnet",
            "width": width,
            "sparsity": 0.0,
            "magnitude": magnitude,
            "seed": s,
            "params_nonzero": 1000 * width,
            "val_top1": round(mean + chance.gauss(0, spread), 4),
            "test_top1": round(mean - 0.01 + chance.gauss(0, spread), 4),
            "engine": "deepspeed",
            "code": "abc",
            **constant,
        }
        for width, means in curves.items()
        for magnitude, mean in zip(magnitudes, means, strict=True)
        for s in range(seeds)
    ]
    return rows.check(pd.DataFrame(made), "planted")


@pytest.fixture
def planted():
    return planted_frame
