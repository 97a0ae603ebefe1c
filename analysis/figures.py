"""Figures of a sweep, for paper and screen: colour-blind safe, one column wide, seeds as dots.

python -m analysis.figures grid=quickstart out=out/quickstart
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from analysis.best import NONE, Best, best_per_size
from analysis.render import number
from analysis.rows import load, split_args
from harness.errors import command

# Okabe and Ito (2008): told apart with any common colour blindness
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", "--", ":", "-.")
WIDTH_INCHES = 5.0


def accuracy_against_magnitude(found: Sequence[Best], path: Path) -> list[Path]:
    """`path` as .png and .pdf: mean test top-1 against magnitude, a line per size.

    `none` is a point of its own, left of 0. Bands are 95 % t intervals with the pooled spread,
    dots are seeds, the open circle is the magnitude that validation chose.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(WIDTH_INCHES, 3.6), layout="constrained")
    numbers = [c.magnitude for line in found for c in line.cells if c.magnitude != NONE]
    step = min((float(m) for m in numbers if m), default=0.2)
    detached = -max(0.1, step / 2)
    for position, line in enumerate(found):
        colour = COLOURS[position % len(COLOURS)]
        dash = DASHES[position // len(COLOURS) % len(DASHES)]
        cells = [cell for cell in line.cells if cell.val]
        name = ", ".join(f"{key} {number(value)}" for key, value in line.size.items()) or "all"
        joined = [cell for cell in cells if cell.magnitude != NONE]
        x = [float(cell.magnitude) for cell in joined]
        y = [100 * cell.mean_test for cell in joined]
        axes.plot(x, y, dash, color=colour, label=name, linewidth=1.4)
        halves = [100 * _half(line, len(cell.test)) for cell in joined]
        if x and not any(math.isnan(half) for half in halves):
            low = [value - half for value, half in zip(y, halves, strict=True)]
            high = [value + half for value, half in zip(y, halves, strict=True)]
            axes.fill_between(x, low, high, color=colour, alpha=0.12, linewidth=0)
        for cell in cells:
            at = detached if cell.magnitude == NONE else float(cell.magnitude)
            axes.plot(
                [at] * len(cell.test), [100 * v for v in cell.test], ".", color=colour, markersize=3
            )
            if cell.magnitude == NONE:
                axes.plot([at], [100 * cell.mean_test], "_", color=colour, markersize=10)
            if cell is line.best:
                axes.plot([at], [100 * cell.mean_test], "o", mec=colour, mfc="none", markersize=9)
    ticks = sorted({float(m) for m in numbers})
    shown = any(cell.magnitude == NONE for line in found for cell in line.cells)
    axes.set_xticks([detached, *ticks] if shown else ticks)
    axes.set_xticklabels([NONE, *map(number, ticks)] if shown else [number(t) for t in ticks])
    axes.set_xlabel("augmentation magnitude")
    axes.set_ylabel("test top-1 (%)")
    axes.spines[["top", "right"]].set_visible(False)
    if len(found) > 1:
        axes.legend(fontsize=7, frameon=False, ncols=2 if len(found) > 4 else 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    written = [path.with_suffix(suffix) for suffix in (".png", ".pdf")]
    figure.savefig(written[0], dpi=160, metadata={"Software": None})
    figure.savefig(written[1], metadata={"CreationDate": None})
    pyplot.close(figure)
    return written


def _half(line: Best, seeds: int) -> float:
    from analysis.stats import half_width

    return half_width(line.spread, seeds)


def main(args: list[str]) -> int:
    """The command."""
    if not args or args[0] in ("--help", "-h"):
        print(__doc__)
        return 0
    rest, own = split_args(args, ("rows", "out", "by"))
    by = own["by"].split(",") if "by" in own else None
    found = best_per_size(load(rest, own.get("rows")), by)
    folder = Path(own.get("out", "out"))
    for path in accuracy_against_magnitude(found, folder / "accuracy_against_magnitude"):
        print(path)
    return 0


if __name__ == "__main__":
    command(main)
