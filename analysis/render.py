"""From the best magnitudes to text: the columns of the table, and screen, markdown and CSV."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from analysis.best import Best

FORMATS = ("screen", "latex", "markdown", "csv")


@dataclass(frozen=True)
class Table:
    """Cells as text, row by row; `caption` and `notes` say how to read them."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str
    notes: tuple[str, ...]


def percent(share: float, digits: int = 1) -> str:
    """`0.8213` as `82.1`; unknown as `-`."""
    return "-" if math.isnan(share) else f"{100 * share:.{digits}f}"


def interval(share: float, half: float, signed: bool = False) -> str:
    """`82.1 ± 0.4` in percent; without the interval where there is none."""
    if math.isnan(share):
        return "-"
    value = f"{100 * share:+.1f}" if signed else percent(share)
    return value if math.isnan(half) else f"{value} ± {percent(half)}"


def number(value: Any) -> str:
    """A size or magnitude as short text; missing as `-`."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    if isinstance(value, float):
        return f"{value:g}"
    return str(value)


def count(value: float | None) -> str:
    """`272474` as `272k`, in three digits."""
    if value is None:
        return "-"
    for limit, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{float(f'{value / limit:.3g}'):g}{suffix}"
    return f"{value:.0f}"


def table(found: Sequence[Best], warnings: Sequence[str]) -> Table:
    """The table of the best magnitude for each size."""
    names = list(found[0].size) if found else []
    header = (*names, "params", "best", "ties", "val", "test", "gain", "seeds", "incomplete")
    rows = []
    for line in found:
        size = [number(value) for value in line.size.values()]
        best = line.best
        rows.append(
            (
                *size,
                count(line.params),
                "-" if best is None else number(best.magnitude),
                " ".join(number(m) for m in line.ties if best and m != best.magnitude) or "-",
                "-" if best is None else percent(best.mean_val),
                interval(line.test, line.test_half),
                interval(line.gain, line.gain_half, signed=True),
                _seeds(line),
                _incomplete(line),
            )
        )
    return Table(header, tuple(rows), caption(found), (*_notes(), *warnings))


def caption(found: Sequence[Best]) -> str:
    """What the table shows."""
    return "Best augmentation magnitude for each size, chosen on validation and reported on test."


def _notes() -> tuple[str, ...]:
    return (
        "Top-1 accuracies in percent, mean over seeds; ± is half of a 95 % t interval with a "
        "standard deviation pooled over the magnitudes of the size (none with one seed).",
        "ties: other magnitudes that cannot be told from the best on validation (one-sided t "
        "tests at 5 %, Bonferroni); gain: test accuracy over no augmentation (none).",
    )


def _seeds(line: Best) -> str:
    counts = sorted({len(cell.val) for cell in line.cells})
    return str(counts[0]) if len(counts) == 1 else f"{counts[0]}-{counts[-1]}"


def _incomplete(line: Best) -> str:
    """`0.5: 1 missing, 0.8: 1 diverged`, cells that do not have all their seeds."""
    parts = []
    for cell in line.cells:
        words = []
        if cell.missing:
            words.append(f"{cell.missing} missing")
        if cell.diverged:
            words.append(f"{cell.diverged} diverged")
        if words:
            parts.append(f"{number(cell.magnitude)}: {', '.join(words)}")
    return "; ".join(parts) or "-"


def screen(shown: Table) -> str:
    """Aligned columns, and the notes below."""
    lines = [shown.caption, *_aligned([shown.header, *shown.rows])]
    return "\n".join([*lines, *(f"note: {note}" for note in shown.notes)])


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    ruled = [rows[0], ["-" * width for width in widths], *rows[1:]]
    return [
        "  " + "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        for row in ruled
    ]


def markdown(shown: Table) -> str:
    """A pipe table; pipes in cells are escaped."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    rule = line(["---:"] * len(shown.header))
    body = [line(shown.header), rule, *map(line, shown.rows)]
    notes = [f"- {note}" for note in shown.notes]
    return "\n".join([shown.caption, "", *body, "", *notes])


def csv(shown: Table) -> str:
    """The cells as CSV, without caption and notes."""
    import csv as writer
    import io

    buffer = io.StringIO()
    lines = writer.writer(buffer, lineterminator="\n")
    lines.writerow(shown.header)
    lines.writerows(shown.rows)
    return buffer.getvalue().rstrip("\n")
