"""A table of text and its formats: screen, markdown, CSV and HTML (LaTeX: `analysis.latex`)."""

from __future__ import annotations

import csv as csv_writer
import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from harness.text_table import format_table


@dataclass(frozen=True)
class Table:
    """Cells as text, row by row; `caption` and `notes` say how to read them."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str
    notes: tuple[str, ...]
    name: str  # of the LaTeX label and the HTML id
    strong: str | None = None  # the column in bold

    def columns(self) -> list[tuple[str, ...]]:
        """Return the cells column by column."""
        return list(zip(*self.rows, strict=True)) if self.rows else [()] * len(self.header)

    def _repr_html_(self) -> str:
        """Return what a notebook shows."""
        return html(self)


def screen(table: Table) -> str:
    """Return aligned columns, and the notes below."""
    rows = [table.header, *table.rows]
    rule = tuple("-" * max(map(len, column)) for column in zip(*rows, strict=True))
    lines = format_table([table.header, rule, *table.rows])
    return "\n".join([table.caption, *lines, *(f"note: {note}" for note in table.notes)])


def markdown(table: Table) -> str:
    """Return a pipe table in which the characters of markdown and HTML markup are escaped."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(map(_escape_markdown, cells)) + " |"

    rule = "| " + " | ".join(["---:"] * len(table.header)) + " |"
    body = [line(table.header), rule, *map(line, table.rows)]
    notes = [f"- {_escape_markdown(note)}" for note in table.notes]
    return "\n".join([table.caption, "", *body, "", *notes])


def _escape_markdown(text: str) -> str:
    return "".join(f"\\{c}" if c in "\\|`*_<>[]#" else c for c in " ".join(text.split()))


def csv(table: Table) -> str:
    """Return the cells as CSV, without caption and notes."""
    buffer = io.StringIO()
    writer = csv_writer.writer(buffer, lineterminator="\n")
    writer.writerow(table.header)
    writer.writerows(table.rows)
    return buffer.getvalue().rstrip("\n")


def html(table: Table) -> str:
    """Return a `<table>` with its notes; every string is escaped."""

    def cell(name: str, text: str) -> str:
        content = escape(text)
        if name == table.strong:
            content = f"<strong>{content}</strong>"
        return f"<td>{content}</td>"

    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in table.header)
    lines = [
        f'<table id="{table.name}">',
        f"<caption>{escape(table.caption)}</caption>",
        f"<thead><tr>{head}</tr></thead>",
        "<tbody>",
        *(f"<tr>{''.join(map(cell, table.header, row))}</tr>" for row in table.rows),
        "</tbody>",
        "</table>",
        f"<ul>{''.join(f'<li>{escape(note)}</li>' for note in table.notes)}</ul>",
    ]
    return "\n".join(lines)
