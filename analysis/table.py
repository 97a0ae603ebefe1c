"""The best augmentation magnitude for each size: chosen on validation, reported on test.

python -m analysis.table grid=quickstart                     # on the screen
python -m analysis.table grid=quickstart format=latex        # also markdown, csv, html
python -m analysis.table rows=rows.csv by=width where="sparsity == 0" metric=loss
python -m analysis.table grid=quickstart out=out/quickstart  # table.tex, rows.csv, the figure
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from analysis import render
from analysis.best import METRICS, best_per_size, warnings
from analysis.rows import load, write
from harness.arguments import Option, split_options
from harness.errors import UserError, command
from harness.verb import callable_module

if TYPE_CHECKING:
    import pandas as pd

OPTIONS = {
    "rows": Option(),
    "by": Option(list, example="width,sparsity"),
    "where": Option(),
    "metric": Option(default="top1", choices=METRICS),
    "format": Option(default="screen", choices=render.FORMATS),
    "out": Option(),
}


def selected(frame: pd.DataFrame, where: str | None) -> pd.DataFrame:
    """The rows that a condition holds for. Raises UserError when it holds for none."""
    if where is None:
        return frame
    from harness.sweep.where import parse

    condition = parse(where, set(map(str, frame.columns)))
    asked = sorted(condition.names)
    columns = [[None if v != v else v for v in frame[name].tolist()] for name in asked]
    rows = zip(*columns, strict=True) if asked else [()] * len(frame)
    kept = frame[[condition.holds(dict(zip(asked, row, strict=True))) for row in rows]]
    if kept.empty:
        raise UserError(f"where={where!r} leaves no row of {len(frame)}")
    return kept


def main(args: list[str]) -> int:
    """The command: print the table, or write it with rows and figure into `out`."""
    rest, options = split_options(args, OPTIONS)
    metric = METRICS[options["metric"]]
    frame = selected(load(rest, options["rows"]), options["where"])
    found = best_per_size(frame, options["by"], metric)
    shown = render.table(found, warnings(frame), metric)
    print(render.show(shown, options["format"]))
    if options["out"] is not None:
        from analysis.drawing import save
        from analysis.figures import accuracy_against_magnitude
        from harness.files import atomic_write, make_folder

        folder = make_folder(Path(options["out"]))
        atomic_write(folder / "table.tex", (render.show(shown, "latex") + "\n").encode())
        figure = accuracy_against_magnitude(found, metric)
        drawn = save(figure, folder / "accuracy_against_magnitude")
        for path in (folder / "table.tex", *write(frame, folder), *drawn):
            print(f"written: {path}")
    return 0


callable_module(__name__)
if __name__ == "__main__":
    command(main, __doc__)
