"""Plain-text tables, the same on a terminal and in a pipe: no colours, nothing cut or wrapped."""

from __future__ import annotations

from collections.abc import Sequence


def format_table(rows: Sequence[Sequence[str]], left_columns: int = 0) -> list[str]:
    """Return a line for each row. The first `left_columns` are aligned left, the others right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]

    def line(row: Sequence[str]) -> str:
        cells = [
            cell.ljust(width) if column < left_columns else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        return f"  {'  '.join(cells)}".rstrip()

    return [line(row) for row in rows]
