"""Tables: the text of their cells, and their formats for screen, Markdown, CSV and HTML."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from html import escape
from typing import Any, NamedTuple

import pandas as pd

from analysis import rows_file
from analysis.columns import NONE, TOP1, Metric, is_missing, on_one_line
from harness.errors import UserError, nearest
from harness.statistics import Optimum
from harness.text_table import format_table

# --- numbers as text ----------------------------------------------------------------------------


def format_score(value: float, metric: Metric = TOP1, signed: bool = False) -> str:
    """Return `0.8213` as `82.1` (percent), a loss as it is, NaN as `-`; zero has no sign."""
    if math.isnan(value):
        return "-"
    text = f"{metric.scale * value:{'+' if signed else ''}.{metric.digits}f}"
    return text if float(text) else text.lstrip("+-")


def format_interval(value: float, half: float, metric: Metric = TOP1, signed: bool = False) -> str:
    """Return `82.1 ± 0.4`; without the interval where there is none, or it has no width.

    An interval narrower than the last digit shown is rounded up to it.
    """
    text = format_score(value, metric, signed)
    if not half > 0 or text == "-":
        return text
    return f"{text} ± {format_score(max(half, 10.0**-metric.digits / metric.scale), metric)}"


def in_unit(value: float, metric: Metric) -> float:
    """Return a score as number in the unit of the tables; 0.8213 is 82.13 (percent)."""
    return round(metric.scale * value, 9)


def counted(count: float, noun: str) -> str:
    """Return `1 seed`, `3 seeds`, `1,200 trials`."""
    return f"{count:,.0f} {noun}{'' if count == 1 else 's'}"


def format_seeds(counts: Collection[float]) -> str:
    """Return `1 seed`, or `2 to 5 seeds`, from the number of seeds of each cell."""
    low, high = (f"{end(counts, default=0):.3g}" for end in (min, max))
    return f"{low} to {high} seeds" if low != high else f"{low} seed{'' if low == '1' else 's'}"


def format_range(low: float, high: float) -> str:
    """Return `5`, or `5 to 9`."""
    first, last = (f"{value:,.10g}" for value in (low, high))
    return first if first == last else f"{first} to {last}"


def format_p(p: float) -> str:
    """Return three decimals, `<0.001` for less, `-` for NaN."""
    return "-" if math.isnan(p) else "<0.001" if p < 0.001 else f"{p:.3f}"


def format_value(value: Any) -> str:
    """Return a size or magnitude as short text; a missing one as `-`."""
    if is_missing(value):
        return "-"
    return f"{value:g}" if isinstance(value, float) else on_one_line(str(value))


def format_levels(magnitudes: Sequence[float | str], levels: Sequence[float | str]) -> str:
    """Return `none, 0.2 to 0.5`: runs of three and more neighbours among `levels` as ranges."""
    places = sorted(levels.index(magnitude) for magnitude in magnitudes)
    runs: list[list[int]] = []
    for place in places:
        if runs and place == runs[-1][-1] + 1:
            runs[-1].append(place)
        else:
            runs.append([place])
    texts = [format_value(level) for level in levels]
    parts = []
    for run in runs:
        shown = [texts[place] for place in run]
        parts += [f"{shown[0]} to {shown[-1]}"] if len(run) > 2 else shown
    return ", ".join(parts)


def format_count(value: float | None) -> str:
    """Return `272474` as `272k`, in three digits; powers of ten from 1e15 on."""
    if value is None:
        return "-"
    if value >= 1e15:
        return f"{value:.3g}"
    for limit, suffix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{float(f'{value / limit:.3g}'):g}{suffix}"
    return f"{value:.0f}"


def format_optimum(optimum: Optimum | None, best: float | str | None = None) -> str:
    """Return `0.41 (0.22, 0.60)`; an interval that reaches the grid's end as `≤0.2`, `≥0.8`.

    If `best` is `none`, which lies below the lowest magnitude, so does the optimum.
    """
    if optimum is None:
        return "-"
    censored_below, censored_above = optimum.censored
    low = f"≤{optimum.ends[0]:g}" if censored_below else f"{optimum.low:.2f}"
    high = f"≥{optimum.ends[1]:g}" if censored_above else f"{optimum.high:.2f}"
    at = f"≤{optimum.ends[0]:g}" if best == NONE else f"{optimum.at:.2f}"
    return f"{at} ({low}, {high})"


# --- tables -------------------------------------------------------------------------------------


class Column(NamedTuple):
    """A column of a table; `columns=` calls it `name`."""

    name: str
    header: str
    cells: Sequence[str]
    numbers: Mapping[str, Sequence[Any]]  # what CSV and Parquet hold instead of the cells
    is_shown: bool = True  # by default


def requested(columns: Sequence[Column], names: Sequence[str] | None) -> list[Column]:
    """Return the columns that `columns=` names; those shown by default if it is not given."""
    if names is None:
        return [column for column in columns if column.is_shown]
    named = {column.name: column for column in columns}
    for name in names:
        if name not in named:
            raise UserError(f"columns: there is no column '{name}'{nearest(name, named)}")
    return [named[name] for name in dict.fromkeys(names)]


@dataclass(frozen=True)
class Table:
    """Cells as text, row by row; `caption` and `notes` say how to read them.

    Control characters and line breaks in them become spaces, whatever the format.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str
    notes: tuple[str, ...]
    name: str  # of the HTML id, and of the LaTeX label where `label` is empty
    strong: str | None = None  # the column in bold
    label: str = ""
    numbers: Mapping[str, Sequence[Any]] | None = None  # CSV and Parquet; the cells if None

    def __post_init__(self) -> None:
        for field in fields(self):
            if field.name != "numbers":
                object.__setattr__(self, field.name, _on_one_line(getattr(self, field.name)))

    @classmethod
    def of(cls, columns: Sequence[Column], held: Sequence[Column], **words: Any) -> Table:
        """Return a table of `columns`; CSV and Parquet hold the numbers of those in `held`."""
        return cls(
            tuple(column.header for column in columns),
            tuple(zip(*(column.cells for column in columns), strict=True)),
            numbers={n: v for column in held for n, v in column.numbers.items()},
            **words,
        )

    def frame(self) -> pd.DataFrame:
        """Return the numbers of the table, a column for each; the cells where it has none."""
        numbers = self.numbers or dict(zip(self.header, self.columns(), strict=True))
        return pd.DataFrame({name: _of_one_type(values) for name, values in numbers.items()})

    def columns(self) -> list[tuple[str, ...]]:
        """Return the cells column by column."""
        return list(zip(*self.rows, strict=True)) if self.rows else [()] * len(self.header)

    def _repr_html_(self) -> str:
        """Return what a notebook shows."""
        return html(self)


def _of_one_type(values: Sequence[Any]) -> list[Any]:
    """Return numbers as they are; texts, magnitudes and lists of them as texts."""
    if not any(isinstance(value, str | tuple) for value in values):
        return list(values)
    return [
        " ".join(map(format_value, value))
        if isinstance(value, tuple)
        else None
        if is_missing(value)
        else format_value(value)
        for value in values
    ]


def _on_one_line(content: Any) -> Any:
    if isinstance(content, str):
        return content if content.isprintable() else on_one_line(content)
    return content if content is None else tuple(map(_on_one_line, content))


def screen(table: Table) -> str:
    """Return aligned columns, and the notes below."""
    rows = [table.header, *table.rows]
    rule = tuple("-" * max(map(len, column)) for column in zip(*rows, strict=True))
    lines = format_table([table.header, rule, *table.rows])
    return "\n".join([table.caption, *lines, *(f"note: {note}" for note in table.notes)])


def markdown(table: Table) -> str:
    """Return a pipe table in which the characters of markdown and HTML markup are escaped."""

    def row(cells: Sequence[str]) -> str:
        return "| " + " | ".join(map(_escape_markdown, cells)) + " |"

    rule = "| " + " | ".join(["---:"] * len(table.header)) + " |"
    body = [row(table.header), rule, *map(row, table.rows)]
    notes = [f"- {_escape_markdown(note)}" for note in table.notes]
    return "\n".join([table.caption, "", *body, "", *notes])


def _escape_markdown(text: str) -> str:
    return "".join(f"\\{c}" if c in "\\|`*_<>[]#$~&" else c for c in text)


def csv(table: Table) -> str:
    """Return the numbers as CSV, without caption and notes; a spreadsheet runs no cell."""
    return rows_file.csv(table.frame()).rstrip("\n")


def html(table: Table) -> str:
    """Return a `<table>` with its notes; every string is escaped."""

    def cell(name: str, text: str) -> str:
        content = escape(text)
        if name == table.strong and text != "-":
            content = f"<strong>{content}</strong>"
        return f"<td>{content}</td>"

    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in table.header)
    notes = "".join(f"<li>{escape(note)}</li>" for note in table.notes)
    lines = [
        f'<table id="{table.name}">',
        f"<caption>{escape(table.caption)}</caption>",
        f"<thead><tr>{head}</tr></thead>",
        "<tbody>",
        *(f"<tr>{''.join(map(cell, table.header, row))}</tr>" for row in table.rows),
        "</tbody>",
        "</table>",
        *([f"<ul>{notes}</ul>"] if notes else []),
    ]
    return "\n".join(lines)
