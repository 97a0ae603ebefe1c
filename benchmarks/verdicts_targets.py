"""Measures how often claim R is right, on simulated sweeps whose truth is known.

python benchmarks/verdicts_targets.py                # 500 sweeps of every scenario
python benchmarks/verdicts_targets.py sweeps=100 only=asymmetric

A run has a clean and a corrupted accuracy, which share half of the variance of its luck; other
shares are scenarios. Scenarios and draws are otherwise those of `verdicts.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from curves import M8, R5, Curve, flat, kink, parabola, shifting
from verdicts import WIDTHS, Scenario, found, rarely_decided, report, sweep

from harness.arguments import Option, parse_options
from harness.errors import command

OPTIONS = {"sweeps": Option(int, default=500, low=1), "only": Option(default="")}
SHARED = 0.5


@dataclass(frozen=True)
class TwoTargets(Scenario):
    """A truth for clean images (`curve`) and another one for corrupted images."""

    corrupted: Curve = flat
    shared: float = SHARED  # share of the variance of luck that both have in common
    noisier: float = 1.0  # noise of corrupted accuracies, times that of clean ones


def two_sweeps(scenario: Scenario, chance: np.random.Generator) -> pd.DataFrame:
    """Return the rows of a sweep with clean and corrupted accuracies.

    Both are made of the same luck and of luck of their own: the deviations of three sweeps without
    an effect are added to the curves.
    """
    assert isinstance(scenario, TwoTargets)
    luck = [sweep(replace(scenario, curve=flat), chance) for _ in range(3)]
    rows = luck[0]
    sizes = {arm["width"]: size for size, arm in enumerate(scenario.arms)}
    for target, curve, own, factor in (
        ("top1", scenario.curve, 1, 1.0),
        ("corrupted", scenario.corrupted, 2, scenario.noisier),
    ):
        truth = np.array(
            [curve(sizes[width], 0.0 if m == "none" else m) / 100
             for width, m in zip(rows["width"], rows["magnitude"], strict=True)]
        )  # fmt: skip
        columns = {}
        for side in ("val", "test"):
            shared, alone = (luck[at][f"{side}_top1"].to_numpy() - 0.9 for at in (0, own))
            mixed = np.sqrt(scenario.shared) * shared + np.sqrt(1 - scenario.shared) * alone
            columns[f"{side}_{target}"] = 0.7 + truth + factor * mixed
        rows = rows.assign(**columns) if target == "corrupted" else rows.assign(
            **{f"new_{name}": values for name, values in columns.items()}
        )  # fmt: skip
    for side in ("val", "test"):
        rows[f"{side}_top1"] = rows.pop(f"new_{side}_top1")
    return rows


def scenarios() -> Iterator[TwoTargets]:
    """Yield every scenario: optima that are equal, and optima that differ."""
    one, two = WIDTHS[:1], WIDTHS[:2]
    deep, shallow = (2.0,) * 4, (0.5,) * 4

    def equal(name: str, clean: Curve, corrupted: Curve, **changes: object) -> TwoTargets:
        return TwoTargets(name, clean, rarely_decided("R"), corrupted=corrupted, **changes)  # type: ignore[arg-type]

    for grid, magnitudes, top in (("M8", M8, 0.3), ("R5", R5, 0.25)):
        peaked, steep = parabola(shallow, shallow, top), parabola(deep, deep, top)
        harmed = parabola(shallow, deep, top)  # strong augmentation harms
        helped = parabola(deep, shallow, top)  # weak augmentation harms
        pairs = {
            "both flat": (flat, flat),
            "both peaked": (peaked, peaked),
            "corrupted 4x as deep": (peaked, steep),
            "asymmetric, other sides": (harmed, helped),
            "asymmetric, the reverse": (helped, harmed),
            "clean flat, corrupted peaked": (flat, peaked),
            "kinks of other sides": (kink(shallow, deep, top), kink(deep, shallow, top)),
        }
        for name, (clean, corrupted) in pairs.items():
            for arms in (one, WIDTHS):
                label = f"{name}, {len(arms)} sizes, {grid}"
                yield equal(label, clean, corrupted, arms=arms, magnitudes=magnitudes)
    for shared in (0.0, 0.9):
        yield equal(f"both peaked, {shared:.0%} shared", parabola(shallow, shallow, 0.3),
                    parabola(shallow, shallow, 0.3), arms=two, shared=shared)  # fmt: skip
    yield equal("corrupted 3x as noisy", parabola(shallow, shallow, 0.3),
                parabola(shallow, shallow, 0.3), arms=two, noisier=3.0)  # fmt: skip
    moved = {0.2: 0.5, 0.3: 0.9}
    for step, power in moved.items():
        yield TwoTargets(f"best {step} higher, 2 sizes", shifting(1.0, (0.2, 0.3)),
                         found("R", power), arms=two,
                         corrupted=shifting(1.0, (0.2 + step, 0.3 + step)))  # fmt: skip


def main(args: list[str]) -> int:
    """Print the rate of each measure with its goal; 1 where one was missed."""
    options = parse_options(args, OPTIONS)
    chosen = [scenario for scenario in scenarios() if options["only"] in scenario.name]
    missed = sum(report(scenario, options["sweeps"], two_sweeps) for scenario in chosen)
    return 1 if missed else 0


if __name__ == "__main__":
    command(main, __doc__, needs_arguments=False)
