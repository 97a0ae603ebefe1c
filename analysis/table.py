"""The best augmentation magnitude for each size: chosen on validation, reported on test.

python -m analysis.table grid=quickstart                     # on the screen
python -m analysis.table grid=quickstart format=latex        # also markdown, csv, html
python -m analysis.table rows=rows.csv by=width where="sparsity == 0" metric=loss
python -m analysis.table grid=quickstart out=out/quickstart  # table.tex, rows.csv, the figure
"""

from __future__ import annotations

from collections.abc import Sequence

from analysis import rows_file
from analysis.best import SizeResult, best_per_size
from analysis.columns import TOP1, Metric, on_one_line
from analysis.commands import FORMAT, ROW_OPTIONS, output_folder, read_request, show
from analysis.provenance import warnings
from analysis.render import (
    Table,
    format_count,
    format_interval,
    format_optimum,
    format_score,
    format_value,
)
from harness.arguments import Option
from harness.errors import command
from harness.files import atomic_write, make_folder

OPTIONS = {**ROW_OPTIONS, "format": FORMAT, "out": Option()}


def best_table(
    results: Sequence[SizeResult], extra_notes: Sequence[str], metric: Metric = TOP1
) -> Table:
    """Return the table of the best magnitude for each size, with notes on how to read it.

    The columns `optimum` and `differs in` appear only where a size has something to show there.
    """
    has_optimum = any(result.optimum for result in results)
    has_differences = any(result.differs_in for result in results)
    rows = [_row(result, metric) for result in results]
    header = [*(results[0].size if results else ()), "params", "best", "ties", "optimum", "val",
              "test", "gain", "seeds", "incomplete", "differs in"]  # fmt: skip
    hidden = {"optimum": not has_optimum, "differs in": not has_differences}
    shown = [at for at, name in enumerate(header) if not hidden.get(name)]
    return Table(
        tuple(header[at] for at in shown),
        tuple(tuple(row[at] for at in shown) for row in rows),
        "Best augmentation magnitude for each size, chosen on validation and reported on test.",
        (*_notes(results, metric, has_optimum), *extra_notes),
        name="best-magnitude",
        strong="best",
    )


def _row(result: SizeResult, metric: Metric) -> list[str]:
    best = result.best
    others = [format_value(m) for m in result.ties if best and m != best.magnitude]
    return [
        *(format_value(value) for value in result.size.values()),
        format_count(result.params),
        format_value(best.magnitude) if best else "-",
        " ".join(others) or "-",
        format_optimum(result.optimum),
        format_score(best.mean_val, metric) if best else "-",
        format_interval(result.test, result.test_half, metric),
        format_interval(result.gain, result.gain_half, metric, signed=True),
        _seeds(result),
        _incomplete(result),
        ", ".join(map(on_one_line, result.differs_in)) or "-",
    ]


def _seeds(result: SizeResult) -> str:
    counts = sorted({len(cell.val) for cell in result.cells})
    return str(counts[0]) if len(counts) == 1 else f"{counts[0]}-{counts[-1]}"


def _incomplete(result: SizeResult) -> str:
    """Return `0.5: 1 missing, 0.8: 1 diverged`: the cells that do not have all their seeds."""
    parts = []
    for cell in result.cells:
        missing = [f"{cell.missing} missing"] if cell.missing else []
        diverged = [f"{cell.diverged} diverged"] if cell.diverged else []
        if missing or diverged:
            parts.append(f"{format_value(cell.magnitude)}: {', '.join([*missing, *diverged])}")
    return "; ".join(parts) or "-"


def _notes(results: Sequence[SizeResult], metric: Metric, has_optimum: bool) -> list[str]:
    counts = sorted({len(cell.val) for line in results for cell in line.cells if cell.val})
    seeds = f"{counts[0]} to {counts[-1]}" if counts[1:] else str(counts[0] if counts else "no")
    lower = "" if metric.sign > 0 else ", lower is better, a positive gain is an improvement"
    notes = [
        f"{metric.words}, mean over {seeds} seeds{lower}; ± is half of a 95 % t interval with a "
        "standard deviation pooled over the magnitudes of the size (none with one seed).",
        "ties: other magnitudes that are statistically indistinguishable from the best on "
        "validation (one-sided t tests at 5 %, Bonferroni); gain: test result compared with no "
        "augmentation (none)" + (", in points." if metric.name == "top1" else "."),
    ]
    if has_optimum:
        notes.append(
            "optimum: where a smooth curve through the validation means is highest, with its 95 % "
            "interval; ≤ and ≥: it may lie beyond the magnitudes of the grid."
        )
    return notes


def main(args: list[str]) -> int:
    """Print the table; with `out`, also write it with its rows and figure into that folder."""
    request = read_request(args, OPTIONS)
    frame, metric, out = request.frame, request.metric, request.options["out"]
    results = best_per_size(frame, request.by, metric)
    table = best_table(results, warnings(frame), metric)
    print(show(table, request.options["format"]))
    if out is not None:
        # here, because matplotlib takes longer to import than the table to make
        from analysis.drawing import save
        from analysis.figure_magnitude import accuracy_against_magnitude
        from analysis.figure_text import with_lengths

        folder = make_folder(output_folder(out))
        atomic_write(folder / "table.tex", (show(table, "latex") + "\n").encode())
        figure = accuracy_against_magnitude(with_lengths(frame, results), metric)
        pictures = save(figure, folder / "accuracy_against_magnitude")
        for path in (folder / "table.tex", *rows_file.write(frame, folder), *pictures):
            print(f"written: {path}")
    return 0


if __name__ == "__main__":
    command(main, __doc__)
