"""What every command does: read its arguments and its rows, print its table, check its folder."""

from __future__ import annotations

import ast
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from analysis import rows_file
from analysis.checks import check
from analysis.columns import CLASS_METRICS, METRICS, SCORES, Metric, values_of
from analysis.latex import latex
from analysis.render import Table, csv, format_value, html, markdown, screen
from harness.arguments import Option, split_list, split_options
from harness.errors import UserError, nearest
from harness.files import CannotWrite, user_path
from harness.rows import rows_of_grid
from harness.states import STATES
from harness.sweep.axes import LONG, PATHS, SHORT
from harness.sweep.where import parse

FORMATS = {"screen": screen, "latex": latex, "markdown": markdown, "csv": csv, "html": html}
LABEL = Option(example="tab:best")
FORMAT = Option(default="screen", choices=tuple(FORMATS))
ROW_OPTIONS = {
    "rows": Option(list, example="rows.csv"),
    "by": Option(list, example="width,sparsity"),
    "where": Option(),
    "metric": Option(default="top1", choices=METRICS),
}
"""Options of every command that evaluates rows."""
TABLE_OPTIONS = {
    **ROW_OPTIONS,
    "format": FORMAT,
    "columns": Option(list, example="best,test"),
    "label": LABEL,
}
"""Options of every command that prints a table for a paper."""
MOST_VALUES = 6  # of a column, named where a condition selects nothing


@dataclass(frozen=True)
class Request:
    """What a command was asked for: its rows, the selected ones, and the values of its options."""

    frame: pd.DataFrame
    by: list[str] | None  # columns that define a size
    metric: Metric
    options: Mapping[str, Any]
    overrides: Sequence[str]  # arguments that change the grid


def read_request(args: Sequence[str], options: Mapping[str, Option]) -> Request:
    """Return the rows and options that a command line names. Raises UserError with its mistakes.

    A folder `out` that cannot be written to is a mistake, before anything is computed.
    """
    overrides, values = split_options(args, options)
    _check_words(overrides, options, has_files=bool(values["rows"]))
    if values.get("out"):
        output_folder(values["out"])
    keys = keys_in(values["where"], values.get("by"))
    metric = METRICS[values.get("metric", "top1")]
    needs_classes = metric.name in CLASS_METRICS or bool(values.get("targets"))
    rows = load(overrides, values["rows"], options, keys, needs_classes)
    frame = selected(rows, values["where"])
    by = values.get("by")
    return Request(frame, by and [column_of(frame, n) for n in by], metric, values, overrides)


def _check_words(overrides: Sequence[str], options: Mapping[str, Option], has_files: bool) -> None:
    """Raise UserError for a word that is not an option, unless the config of a grid reads it."""
    names = [arg.partition("=")[0] for arg in overrides]
    if "grid" in names:
        if has_files:
            raise UserError("rows= and grid= both name rows: keep one of them")
        return
    for name in names:
        raise UserError(f"there is no option '{name}'{nearest(name, {*options, 'grid'})}")


def output_folder(text: str | Path) -> Path:
    """Return the folder that `out=` names. Raises UserError if it cannot be written to.

    The folder is not created yet; the nearest one that exists takes a file for a moment.
    """
    folder = user_path(str(text), "out")
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=existing) as file:
            file.write(b"0" * 4096)
    except OSError as error:
        raise CannotWrite(
            f"out={text}: cannot write into {existing}: {error.strerror or error}; choose another "
            "folder with out=PATH"
        ) from error
    return folder


def show(table: Table, form: str) -> str:
    """Return the table as text in one of `FORMATS`."""
    return FORMATS[form](table)


def with_label(table: Table, frame: pd.DataFrame, label: str | None) -> Table:
    """Return the table with the `label` of LaTeX; by default it names the sweep of the rows."""
    if label is None:
        grids = sorted({str(name) for name in values_of(frame, "grid") if name is not None})
        sweep = [re.sub(r"[^A-Za-z0-9]+", "-", grids[0])] if len(grids) == 1 else []
        return replace(table, label=":".join(["tab", *sweep, table.name]))
    if not re.fullmatch(r"[\w:.-]+", label, re.ASCII):
        raise UserError(f"label={label} is not a label: write letters, digits, and any of :._-")
    return replace(table, label=label)


# --- rows ---------------------------------------------------------------------------------------


def load(
    overrides: Sequence[str],
    files: Sequence[str | Path] | None = None,
    options: Mapping[str, Option] = ROW_OPTIONS,
    keys: Sequence[str] = (),
    needs_classes: bool = False,
) -> pd.DataFrame:
    """Return the checked rows of files or, without files, of the sweeps that `grid=A,B` names.

    `options` are those of the command, which a misspelt word is compared with. Rows of a sweep
    also have the values of the `keys` of its config, which the grid may fix. With `needs_classes`
    the worst class and the spread over classes are computed for results that lack them.
    """
    if files is not None:
        paths = {str(name): user_path(str(name), "rows") for name in files}
        return together({n: check(rows_file.read(path), n) for n, path in paths.items()})
    grids = [name for arg in overrides if arg.startswith("grid=") for name in split_list(arg[5:])]
    if not grids:
        raise UserError("no rows are named: add grid=NAME, or rows=FILE (CSV or Parquet)")
    others = [arg for arg in overrides if not arg.startswith("grid=")]
    frames = {}
    for grid in grids:
        rows = rows_of_grid([f"grid={grid}", *others], options, keys, needs_classes)
        frames[grid] = check(pd.DataFrame(rows), f"grid {grid}")
    return together(frames)


def keys_in(where: str | None, by: Sequence[str] | None = None) -> list[str]:
    """Return the keys of a config that a condition and a list of columns name."""
    words = re.findall(r"[\w.]+", " ".join([where or "", *(by or ())]))
    return sorted({*SHORT, *PATHS}.intersection(words))


def together(sources: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return the rows of several files or sweeps; a trial that is in several of them counts once.

    Of such a trial the row with the first state in the order of `STATES` is kept: `done` before
    all others. Raises UserError where a trial has different results, because both would be pooled
    as if they were two seeds.
    """
    frames = list(sources.values())
    if len(frames) == 1:
        return frames[0]
    combined = pd.concat([frame.astype(object) for frame in frames], ignore_index=True)
    combined = combined.infer_objects().astype({"magnitude": object})
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


def column_of(frame: pd.DataFrame, name: str) -> str:
    """Return the column of the key `name`: `width` for `model.width`, as in a grid's axes."""
    return name if name in frame.columns else LONG.get(name, name)


def selected(frame: pd.DataFrame, where: str | None) -> pd.DataFrame:
    """Return the rows for which a condition (`width < 1`) holds. Raises UserError if none do."""
    if where is None:
        return frame
    keys = {key for key, name in LONG.items() if name in frame.columns}
    condition = parse(where, keys.union(map(str, frame.columns)))
    names = sorted(condition.names)
    values = [list(map(_as_list, values_of(frame, column_of(frame, name)))) for name in names]
    rows = zip(*values, strict=True) if names else [()] * len(frame)
    kept = frame[[condition.holds(dict(zip(names, row, strict=True))) for row in rows]]
    if kept.empty:
        texts = [list(dict.fromkeys(map(format_value, column))) for column in values]
        present = "".join(
            f"; {name}: {', '.join(t[:MOST_VALUES])}{', ...' if len(t) > MOST_VALUES else ''}"
            for name, t in zip(names, texts, strict=True)
        )
        raise UserError(f"where={where!r} leaves none of the {len(frame)} rows{present}")
    return kept


def _as_list(value: Any) -> Any:
    """Return the list that a text such as `['a', 0.5]` shows, and every other value as it is."""
    if isinstance(value, str) and value.startswith("["):
        try:
            return ast.literal_eval(value)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            return value
    return value
