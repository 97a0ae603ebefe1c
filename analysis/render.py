"""Tables: the text of their cells, and their formats for screen, Markdown, CSV and HTML."""

from __future__ import annotations

import csv as csv_writer
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from html import escape
from typing import Any

from analysis.columns import TOP1, Metric, is_missing, on_one_line
from analysis.rows_file import without_formulas
from harness.statistics import Optimum
from harness.text_table import format_table

# --- numbers as text ----------------------------------------------------------------------------


def format_score(value: float, metric: Metric = TOP1, signed: bool = False) -> str:
    """Return `0.8213` as `82.1` (percent), a loss as it is, and NaN as `-`."""
    if math.isnan(value):
        return "-"
    return f"{metric.scale * value:{'+' if signed else ''}.{metric.digits}f}"


def format_interval(value: float, half: float, metric: Metric = TOP1, signed: bool = False) -> str:
    """Return `82.1 ± 0.4`; without the interval where there is none."""
    text = format_score(value, metric, signed)
    return text if math.isnan(half) or text == "-" else f"{text} ± {format_score(half, metric)}"


def format_p(p: float) -> str:
    """Return three decimals, `<0.001` for less, `-` for NaN."""
    return "-" if math.isnan(p) else "<0.001" if p < 0.001 else f"{p:.3f}"


def format_value(value: Any) -> str:
    """Return a size or magnitude as short text; a missing one as `-`."""
    if is_missing(value):
        return "-"
    return f"{value:g}" if isinstance(value, float) else on_one_line(str(value))


def format_count(value: float | None) -> str:
    """Return `272474` as `272k`, in three digits."""
    if value is None:
        return "-"
    for limit, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{float(f'{value / limit:.3g}'):g}{suffix}"
    return f"{value:.0f}"


def format_optimum(optimum: Optimum | None) -> str:
    """Return `0.41 (0.22, 0.60)`; an interval that reaches the grid's end as `≤0.2`, `≥0.8`."""
    if optimum is None:
        return "-"
    censored_below, censored_above = optimum.censored
    low = f"≤{optimum.ends[0]:g}" if censored_below else f"{optimum.low:.2f}"
    high = f"≥{optimum.ends[1]:g}" if censored_above else f"{optimum.high:.2f}"
    return f"{optimum.at:.2f} ({low}, {high})"


# --- tables -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Table:
    """Cells as text, row by row; `caption` and `notes` say how to read them.

    Control characters and line breaks in them become spaces, whatever the format.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str
    notes: tuple[str, ...]
    name: str  # of the LaTeX label and the HTML id
    strong: str | None = None  # the column in bold

    def __post_init__(self) -> None:
        for field in fields(self):
            object.__setattr__(self, field.name, _on_one_line(getattr(self, field.name)))

    def columns(self) -> list[tuple[str, ...]]:
        """Return the cells column by column."""
        return list(zip(*self.rows, strict=True)) if self.rows else [()] * len(self.header)

    def _repr_html_(self) -> str:
        """Return what a notebook shows."""
        return html(self)


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
    """Return the cells as CSV, without caption and notes; a spreadsheet runs none of them."""
    buffer = io.StringIO()
    writer = csv_writer.writer(buffer, lineterminator="\n")
    writer.writerows(map(without_formulas, row) for row in (table.header, *table.rows))
    return buffer.getvalue().rstrip("\n")


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
