"""The formats in which commands print a table."""

from __future__ import annotations

from analysis.latex import latex
from analysis.render import Table, csv, html, markdown, screen

RENDERERS = {"screen": screen, "latex": latex, "markdown": markdown, "csv": csv, "html": html}
FORMATS = tuple(RENDERERS)


def show(table: Table, form: str) -> str:
    """Return the table as text in one of `FORMATS`."""
    return RENDERERS[form](table)
