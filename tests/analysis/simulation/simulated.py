"""Sweeps whose truth is known, and the verdict of a claim on one."""

import pandas as pd

from analysis.claims import claims

MAGNITUDES = [0.1 * step for step in range(8)]
SPREAD = 0.002  # 0.2 points, half of the variance shared by validation and test


def sweep(chance, curve, arms, magnitudes=MAGNITUDES, seeds=3, **constant):
    """`curve(arm number, magnitude)` is the true accuracy; `arms` are columns of their own."""
    made = []
    for number, arm in enumerate(arms):
        for magnitude in magnitudes:
            for seed in range(seeds):
                run = curve(number, magnitude) + chance.gauss(0, SPREAD * 0.7)
                val, test = (run + chance.gauss(0, SPREAD * 0.7) for _ in range(2))
                made.append({
                    "trial": str(len(made)), "state": "done", "sparsity": 0.0,
                    "magnitude": magnitude, "seed": seed, "val_top1": val, "test_top1": test,
                    **constant, **arm,
                })  # fmt: skip
    return pd.DataFrame(made)


def verdict(frame, name, **more):
    return claims(frame, **more, names=[name])[0]


WIDTHS = [{"width": float(width)} for width in (1, 2, 4, 8)]
SPARSITIES = [{"width": 1.0, "sparsity": share} for share in (0.0, 0.5, 0.8, 0.95)]
