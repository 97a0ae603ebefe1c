"""Figures of a sweep, for paper and screen: colour-blind safe, one column wide, seeds as dots.

python -m analysis.figures grid=quickstart out=out/quickstart    # every figure, captions.txt
python -m analysis.figures rows=rows.csv by=width where="sparsity == 0" metric=loss
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure

from analysis.best import SizeResult, best_per_size
from analysis.cells import planned
from analysis.columns import TOP1, Metric
from analysis.commands import ROW_OPTIONS, output_folder, read_request
from analysis.drawing import POINTS, save
from analysis.figure_difficulty import difficulty_against_accuracy
from analysis.figure_heat_map import heat_map
from analysis.figure_magnitude import (
    accuracy_against_magnitude,
    change_against_none,
    too_many_lines,
)
from analysis.figure_optimum import optimum_against_epochs, optimum_against_params
from analysis.figure_sparsity import accuracy_against_sparsity
from analysis.figure_text import captions, with_lengths
from harness.arguments import Option
from harness.errors import command
from harness.files import atomic_write

OPTIONS = {**ROW_OPTIONS, "out": Option(default="out")}
MOST_ROWS = 60  # sizes of the other figures; a heat map of so many fills a page


def figures(
    frame: pd.DataFrame,
    results: Sequence[SizeResult],
    metric: Metric = TOP1,
    by: Sequence[str] | None = None,
) -> dict[str, Figure]:
    """Return every figure that the rows allow, by name; those for fewer sizes are left out.

    Where sizes were trained for different lengths, their names say so.
    """
    results = with_lengths(results)
    candidates: dict[str, Figure | None] = {}
    if not too_many_lines(results):
        candidates = {
            "accuracy_against_magnitude": accuracy_against_magnitude(results, metric),
            "change_against_none": change_against_none(results, metric),
            "optimum_against_params": optimum_against_params(results),
            "optimum_against_epochs": optimum_against_epochs(results),
        }
    if len(results) <= MOST_ROWS:
        candidates |= {
            "heat_map": heat_map(results, metric),
            "accuracy_against_sparsity": accuracy_against_sparsity(frame, metric, by),
            "difficulty_against_accuracy": difficulty_against_accuracy(frame, metric, by),
        }
    drawn = {name: figure for name, figure in candidates.items() if figure is not None}
    done = int((frame["state"] == "done").sum())
    trials = len(planned(frame))
    interim = f"interim: {done:,} of {trials:,} trials done"
    for figure in drawn.values() if done < trials else ():
        figure.suptitle(interim, x=0.99, ha="right", fontsize=POINTS - 2, color="0.4")
    return drawn


def left_out(results: Sequence[SizeResult]) -> str:
    """Return which figures are left out for so many sizes, and what to do; empty if none are."""
    if not too_many_lines(results):
        return ""
    which = "figures" if len(results) > MOST_ROWS else "figures with a line per size"
    return f"{len(results):,} sizes are too many for {which}: choose some with where= or by="


def main(args: list[str]) -> int:
    """Write every figure that the rows allow into `out`."""
    request = read_request(args, OPTIONS)
    frame, by, metric = request.frame, request.by, request.metric
    results = best_per_size(frame, by, metric)
    folder = output_folder(request.options["out"])
    drawn = figures(frame, results, metric, by)
    for name, figure in drawn.items():
        for path in save(figure, folder / name):
            print(path)
    texts = captions(frame, results, drawn)
    if texts:
        lines = [f"{name}: {text}" for name, text in texts.items()]
        atomic_write(folder / "captions.txt", "\n\n".join([*lines, ""]).encode())
        print(folder / "captions.txt")
    if message := left_out(results):
        print(f"note: {message}")
    return 0


if __name__ == "__main__":
    command(main, __doc__)
