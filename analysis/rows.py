"""Rows, one per trial: read from a sweep's store or from a file, checked, selected and written.

python -m analysis.rows grid=quickstart out=out/quickstart      # rows.csv and rows.parquet
python -m analysis.table rows=out/quickstart/rows.csv
"""

from __future__ import annotations

import io
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from analysis.checks import check
from analysis.columns import COLUMNS, METRICS, SCORES, TEXT, values_of
from harness.arguments import Option, split_list, split_options
from harness.errors import UserError, command
from harness.files import atomic_write, make_folder
from harness.rows import rows_of_grid
from harness.states import STATES
from harness.sweep.where import parse

OPTIONS = {"rows": Option(), "out": Option()}
ROW_OPTIONS = {
    "rows": Option(),
    "by": Option(list, example="width,sparsity"),
    "where": Option(),
    "metric": Option(default="top1", choices=METRICS),
}
"""Options of every command that evaluates rows."""


def load(rest: Sequence[str], files: str | None) -> pd.DataFrame:
    """Return the checked rows of `rows=FILE[,FILE]` or, without files, of the sweeps in `rest`."""
    if files is not None:
        if rest:
            words = ", ".join(arg.partition("=")[0] for arg in rest)
            raise UserError(f"with rows=FILE these words mean nothing: {words}")
        if not split_list(files):
            raise UserError(f"'{files}' names no file: write rows=FILE (CSV or Parquet)")
        return together({name: check(read(Path(name)), name) for name in split_list(files)})
    grids = [name for arg in rest if arg.startswith("grid=") for name in split_list(arg[5:])]
    if not grids:
        raise UserError("no rows are named: add grid=NAME, or rows=FILE (CSV or Parquet)")
    others = [arg for arg in rest if not arg.startswith("grid=")]
    frames = {grid: pd.DataFrame(rows_of_grid([f"grid={grid}", *others])) for grid in grids}
    return together({grid: check(frame, f"grid {grid}") for grid, frame in frames.items()})


def read(path: Path) -> pd.DataFrame:
    """Return a CSV or Parquet file as a frame that has not been checked yet."""
    if not path.is_file():
        raise UserError(f"there is no rows file {path}: check the path (from {Path.cwd()})")
    try:
        if path.suffix == ".parquet":
            return pd.read_parquet(path)
        frame = pd.read_csv(path, dtype=dict.fromkeys(TEXT, str), low_memory=False)
    except (ValueError, OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as rows: {' '.join(str(error).split())}") from error
    if not isinstance(frame.index, pd.RangeIndex):  # pandas made an index of surplus cells
        raise UserError(f"{path} cannot be read as rows: its lines have more cells than its header")
    return frame


def together(sources: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return the rows of several files or sweeps; a trial that is in several of them counts once.

    Of such a trial the row with the first state in the order of `STATES` is kept: `done` before
    all others. Raises UserError where a trial has different results, because both would be pooled
    as if they were two seeds.
    """
    frames = list(sources.values())
    if len(frames) == 1:
        return frames[0]
    columns = dict.fromkeys(name for frame in frames for name in frame.columns)
    combined = pd.DataFrame(
        {
            name: [v for f in frames for v in (f[name].tolist() if name in f else [None] * len(f))]
            for name in columns
        }
    )
    combined["magnitude"] = combined["magnitude"].astype(object)
    if "trial" not in combined.columns:
        return combined
    done = combined[(combined["state"] == "done") & combined["trial"].notna()]
    results = done.drop_duplicates(["trial", *SCORES])
    differing = results[results.duplicated("trial")]
    if len(differing):
        raise UserError(
            f"trial {differing['trial'].iloc[0]} has different results in {', '.join(sources)}: "
            "choose one of them, or compare them with analysis.compare"
        )
    by_state = combined["state"].map(STATES.index).sort_values(kind="stable").index
    trials = combined.loc[by_state, "trial"]
    is_repeated = (trials.duplicated() & trials.notna()).sort_index()
    return combined[~is_repeated].reset_index(drop=True)


def selected(frame: pd.DataFrame, where: str | None) -> pd.DataFrame:
    """Return the rows for which a condition (`width < 1`) holds. Raises UserError if none do."""
    if where is None:
        return frame
    condition = parse(where, set(map(str, frame.columns)))
    columns = sorted(condition.names)
    values = [values_of(frame, name) for name in columns]
    rows = zip(*values, strict=True) if columns else [()] * len(frame)
    kept = frame[[condition.holds(dict(zip(columns, row, strict=True))) for row in rows]]
    if kept.empty:
        raise UserError(f"where={where!r} leaves none of the {len(frame)} rows")
    return kept


def write(frame: pd.DataFrame, folder: Path) -> list[Path]:
    """Write `rows.csv` and `rows.parquet` into `folder`, each atomically; return their paths."""
    make_folder(folder)
    table = frame.assign(magnitude=frame["magnitude"].astype(str))
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    atomic_write(folder / "rows.csv", table.to_csv(index=False).encode())
    atomic_write(folder / "rows.parquet", buffer.getvalue())
    return [folder / "rows.csv", folder / "rows.parquet"]


def usage() -> str:
    """Return the help text: the command and every column."""
    columns = [f"  {name:<17} {meaning}" for name, meaning in COLUMNS.items()]
    return "\n".join([str(__doc__), *columns])


def main(args: list[str]) -> int:
    """Write the rows into `out`, or print them as CSV."""
    rest, options = split_options(args, OPTIONS)
    frame = load(rest, options["rows"])
    if options["out"] is not None:
        print("\n".join(str(path) for path in write(frame, Path(options["out"]))))
    else:
        frame.to_csv(sys.stdout, index=False)
    return 0


if __name__ == "__main__":
    command(main, usage)
