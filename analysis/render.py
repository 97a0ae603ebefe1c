"""From best magnitudes to text: the columns of the table; screen, markdown, CSV and HTML."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from analysis.best import TOP1, Best, Metric
from analysis.checks import flat

if TYPE_CHECKING:
    from analysis.optimum import Optimum

FORMATS = ("screen", "latex", "markdown", "csv", "html")


@dataclass(frozen=True)
class Table:
    """Cells as text, row by row; `caption` and `notes` say how to read them."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str
    notes: tuple[str, ...]
    name: str = "best-magnitude"  # of the LaTeX label and the HTML id
    strong: str | None = "best"  # the column in bold

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return html(self)


def score(value: float, metric: Metric = TOP1, signed: bool = False) -> str:
    """`0.8213` as `82.1` (percent), a loss as it is; unknown as `-`."""
    if math.isnan(value):
        return "-"
    return f"{metric.scale * value:{'+' if signed else ''}.{metric.digits}f}"


def interval(value: float, half: float, metric: Metric = TOP1, signed: bool = False) -> str:
    """`82.1 ± 0.4`; without the interval where there is none."""
    shown = score(value, metric, signed)
    return shown if math.isnan(half) or shown == "-" else f"{shown} ± {score(half, metric)}"


def p_value(p: float) -> str:
    """Three decimals, or that it is smaller."""
    return "-" if math.isnan(p) else "<0.001" if p < 0.001 else f"{p:.3f}"


def number(value: Any) -> str:
    """A size or magnitude as short text; missing as `-`."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    if isinstance(value, float):
        return f"{value:g}"
    return flat(str(value))


def count(value: float | None) -> str:
    """`272474` as `272k`, in three digits."""
    if value is None:
        return "-"
    for limit, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{float(f'{value / limit:.3g}'):g}{suffix}"
    return f"{value:.0f}"


def place(found: Optimum | None) -> str:
    """`0.41 (0.22, 0.60)`; ends of the interval at the grid's ends as `≤0.2`, `≥0.8`."""
    if found is None:
        return "-"
    below, above = found.censored
    low = f"≤{found.ends[0]:g}" if below else f"{found.low:.2f}"
    high = f"≥{found.ends[1]:g}" if above else f"{found.high:.2f}"
    return f"{found.at:.2f} ({low}, {high})"


def table(found: Sequence[Best], warnings: Sequence[str], metric: Metric = TOP1) -> Table:
    """The table of the best magnitude for each size."""
    names = list(found[0].size) if found else []
    smooth = any(line.optimum for line in found)
    mixed = any(line.mixed for line in found)
    header = [*names, "params", "best", "ties", "optimum", "val", "test", "gain", "seeds"]
    rows = []
    for line in found:
        best = line.best
        rows.append(
            [
                *(number(value) for value in line.size.values()),
                count(line.params),
                "-" if best is None else number(best.magnitude),
                " ".join(number(m) for m in line.ties if best and m != best.magnitude) or "-",
                place(line.optimum),
                "-" if best is None else score(best.mean_val, metric),
                interval(line.test, line.test_half, metric),
                interval(line.gain, line.gain_half, metric, signed=True),
                _seeds(line),
                _incomplete(line),
                *([", ".join(map(flat, line.mixed)) or "-"] if mixed else []),
            ]
        )
    if not smooth:
        at = header.index("optimum")
        for cells in (header, *rows):
            del cells[at]
    return Table(
        (*header, "incomplete", *(["differs in"] if mixed else [])),
        tuple(map(tuple, rows)),
        "Best augmentation magnitude for each size, chosen on validation and reported on test.",
        (*_notes(found, metric, smooth), *warnings),
    )


def _notes(lines: Sequence[Best], metric: Metric, smooth: bool) -> list[str]:
    counts = sorted({len(cell.val) for line in lines for cell in line.cells if cell.val})
    seeds = f"{counts[0]} to {counts[-1]}" if counts[1:] else str(counts[0] if counts else "no")
    better = "" if metric.sign > 0 else ", less is better, a positive gain is an improvement"
    found = [
        f"{metric.words}, mean over {seeds} seeds{better}; ± is half of a 95 % t interval with a "
        "standard deviation pooled over the magnitudes of the size (none with one seed).",
        "ties: other magnitudes that cannot be told from the best on validation (one-sided t "
        "tests at 5 %, Bonferroni); gain: test result against no augmentation (none)"
        + (", in points." if metric.name == "top1" else "."),
    ]
    if smooth:
        found.append(
            "optimum: where a smooth curve through the validation means is highest, with its 95 % "
            "interval; ≤ and ≥ say that it may lie beyond the magnitudes tried."
        )
    return found


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


def show(shown: Table, shape: str) -> str:
    """The table in one of FORMATS."""
    if shape == "latex":
        from analysis.latex import latex

        return latex(shown)
    return {"screen": screen, "markdown": markdown, "csv": csv, "html": html}[shape](shown)


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
    """A pipe table; what markdown or HTML would take for markup is escaped."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(map(_plain_markdown, cells)) + " |"

    rule = "| " + " | ".join(["---:"] * len(shown.header)) + " |"
    body = [line(shown.header), rule, *map(line, shown.rows)]
    notes = [f"- {_plain_markdown(note)}" for note in shown.notes]
    return "\n".join([shown.caption, "", *body, "", *notes])


def _plain_markdown(text: str) -> str:
    flat = " ".join(text.split())
    return "".join(f"\\{c}" if c in "\\|`*_<>[]#" else c for c in flat)


def csv(shown: Table) -> str:
    """The cells as CSV, without caption and notes."""
    import csv as writer
    import io

    buffer = io.StringIO()
    lines = writer.writer(buffer, lineterminator="\n")
    lines.writerow(shown.header)
    lines.writerows(shown.rows)
    return buffer.getvalue().rstrip("\n")


def html(shown: Table) -> str:
    """A `<table>` with its notes; every string escaped."""
    from html import escape

    def cell(name: str, text: str) -> str:
        shown_text = escape(text)
        return (
            f"<td><strong>{shown_text}</strong></td>"
            if name == shown.strong
            else (f"<td>{shown_text}</td>")
        )

    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in shown.header)
    lines = [
        f'<table id="{shown.name}">',
        f"<caption>{escape(shown.caption)}</caption>",
        f"<thead><tr>{head}</tr></thead>",
        "<tbody>",
        *(f"<tr>{''.join(map(cell, shown.header, row))}</tr>" for row in shown.rows),
        "</tbody>",
        "</table>",
        f"<ul>{''.join(f'<li>{escape(note)}</li>' for note in shown.notes)}</ul>",
    ]
    return "\n".join(lines)
