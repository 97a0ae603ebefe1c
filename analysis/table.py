"""The best augmentation magnitude for each size: chosen on validation, reported on test.

python -m analysis.table grid=quickstart                     # on the screen
python -m analysis.table grid=quickstart format=latex        # also markdown, csv
python -m analysis.table rows=rows.csv by=width where="sparsity == 0"
python -m analysis.table grid=quickstart out=out/quickstart  # table.tex, rows.csv, the figure
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis import render
from analysis.best import best_per_size, warnings
from analysis.rows import load, split_args, write
from harness.errors import UserError, command, nearest

if TYPE_CHECKING:
    import pandas as pd

KNOBS = ("rows", "format", "by", "where", "out")


def selected(frame: pd.DataFrame, where: str | None) -> pd.DataFrame:
    """The rows that a condition holds for. Raises UserError when it holds for none."""
    if where is None:
        return frame
    from harness.sweep.where import parse

    condition = parse(where, set(map(str, frame.columns)))
    kept = frame[[condition.holds(_plain(row)) for row in frame.to_dict("records")]]
    if kept.empty:
        raise UserError(f"where={where!r} leaves no row of {len(frame)}")
    return kept


def _plain(row: Mapping[Any, object]) -> dict[str, object]:
    return {str(key): None if value != value else value for key, value in row.items()}


def main(args: list[str]) -> int:
    """The command: print the table, or write it with rows and figure into `out`."""
    if not args or args[0] in ("--help", "-h"):
        print(__doc__)
        return 0
    rest, own = split_args(args, KNOBS)
    shape = own.get("format", "screen")
    if shape not in render.FORMATS:
        raise UserError(f"format={shape} is not known{nearest(shape, render.FORMATS)}")
    frame = selected(load(rest, own.get("rows")), own.get("where"))
    by = [name.strip() for name in own["by"].split(",")] if "by" in own else None
    found = best_per_size(frame, by)
    shown = render.table(found, warnings(frame))
    if shape == "latex":
        from analysis.latex import latex

        print(latex(shown))
    else:
        print(
            {"screen": render.screen, "markdown": render.markdown, "csv": render.csv}[shape](shown)
        )
    if "out" in own:
        from analysis.figures import accuracy_against_magnitude
        from analysis.latex import latex
        from harness.store.files import atomic_write, make_folder

        folder = make_folder(Path(own["out"]))
        atomic_write(folder / "table.tex", (latex(shown) + "\n").encode())
        figures = accuracy_against_magnitude(found, folder / "accuracy_against_magnitude")
        for path in (folder / "table.tex", *write(frame, folder), *figures):
            print(f"written: {path}")
    return 0


if __name__ == "__main__":
    command(main)
