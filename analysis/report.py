"""One page about a sweep: what is missing, the table, the claims, figures, cost, provenance.

python -m analysis.report grid=quickstart out=out/quickstart   # report.html, and its rows.csv
python -m analysis.report rows=rows.csv out=out by=width where="sparsity == 0" metric=loss

The page is self-contained: no network, no server. The same rows give the same bytes.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from html import escape
from pathlib import Path

import pandas as pd

from analysis import report_page, report_tables, rows_file
from analysis.best import SizeResult, best_per_size
from analysis.cells import mean_counts, size_columns
from analysis.claims import claims, claims_table
from analysis.columns import TOP1, Metric
from analysis.commands import ROW_OPTIONS, output_folder, read_request
from analysis.figure_text import captions
from analysis.figures import figures, left_out
from analysis.provenance import warnings
from analysis.report_page import sortable
from analysis.table import best_table
from harness.arguments import Option
from harness.errors import command
from harness.files import atomic_write, make_folder

OPTIONS = {**ROW_OPTIONS, "out": Option(required=True, example="out/report")}


def report(
    frame: pd.DataFrame,
    by: Sequence[str] | None = None,
    metric: Metric = TOP1,
    words: Sequence[str] = (),
) -> str:
    """Return the page as HTML.

    `words` (such as `metric=loss`) go into the command on the page that reproduces it.
    """
    columns = size_columns(frame, by)
    counted = mean_counts(frame, columns)
    results = best_per_size(frame, by, metric)
    messages = warnings(frame)
    grids = sorted({str(name) for name in frame["grid"].dropna()}) if "grid" in frame else []
    title = f"Sweep report: {', '.join(grids) or 'rows'}"
    done = int((frame["state"] == "done").sum())
    drawn = figures(frame, results, metric, by)
    texts = captions(frame, results, drawn)
    pictures = [
        report_page.figure(name, figure, caption)
        for (name, figure), caption in zip(drawn.items(), texts.values(), strict=True)
    ]
    verdicts = claims(frame, metric, by=by)
    parts = {
        "state": ("State", _state(counted, columns, results)),
        "best": ("Best magnitude", sortable(best_table(results, messages, metric))),
        "verdicts": ("Claims", sortable(claims_table(verdicts, messages, metric))),
        "figures": (
            "Figures",
            _alarm(left_out(results)) + f'<div class="figures">{"".join(pictures)}</div>',
        ),
        "costs": ("Cost", sortable(report_tables.cost(counted, columns))),
        "made": (
            "Provenance",
            "".join(map(_alarm, messages)) + sortable(report_tables.provenance(frame)),
        ),
        "again": ("How to reproduce", _how_to_reproduce(grids, words)),
    }
    links = "".join(
        f'<li><a href="#{key}">{escape(name)}</a></li>' for key, (name, _) in parts.items()
    )
    body = [
        f"<header><h1>{escape(title)}</h1>",
        f"<p>{done:,} of {len(frame):,} trials are done, {len(results):,} sizes.</p>",
        f'<nav aria-label="parts"><ul>{links}</ul></nav></header>',
        "<main>",
        *(
            f'<section id="{key}">\n<h2>{escape(name)}</h2>\n{text}\n</section>'
            for key, (name, text) in parts.items()
        ),
        "</main>",
    ]
    return report_page.page(title, "\n".join(body))


def write_report(
    frame: pd.DataFrame,
    out: str | Path,
    by: Sequence[str] | None = None,
    metric: Metric = TOP1,
    words: Sequence[str] = (),
) -> list[Path]:
    """Write `report.html` and the rows that reproduce it into `out`; return the paths."""
    folder = output_folder(out)
    page = report(frame, by, metric, words)
    make_folder(folder)
    atomic_write(folder / "report.html", page.encode())
    return [folder / "report.html", *rows_file.write(frame, folder)]


def _alarm(text: str) -> str:
    return f'<p class="alarm">{escape(text)}</p>' if text else ""


def _state(frame: pd.DataFrame, columns: Sequence[str], results: Sequence[SizeResult]) -> str:
    missing = report_tables.unfinished(frame, columns)
    seeds = sortable(report_tables.completeness(results))
    if not missing.rows:
        return f"<p>Every trial has its result.</p>\n{seeds}"
    unexplained = sum(int(row[2]) for row in missing.rows if row[0] == report_tables.UNEXPLAINED)
    alarm = f"{unexplained:,} trials failed for a reason that is not explained yet"
    interim = "<p>The sweep is not finished: everything below is an interim result.</p>"
    return "\n".join([_alarm(alarm) if unexplained else "", interim, sortable(missing), seeds])


def _how_to_reproduce(grids: Sequence[str], words: Sequence[str]) -> str:
    lines = [f"python -m harness.launch {shlex.quote(f'grid={name}')}" for name in grids]
    arguments = " ".join(map(shlex.quote, ["rows=rows.csv", *words, "out=."]))
    lines.append(f"python -m analysis.report {arguments}")
    return (
        "<p>The first commands train what the store lacks, with the code named above. Words with "
        "which the sweep was launched in addition to its name (store=, overrides such as epochs=5) "
        "are not in the rows: add them; <code>dry_run=true</code> shows whether the trials are the "
        "same. The last command makes this page, byte for byte, from the rows beside it. "
        "Magnitudes were chosen on validation; test numbers took part in no choice.</p>\n"
        f"<pre>{escape(chr(10).join(lines))}</pre>"
    )


def main(args: list[str]) -> int:
    """Write the page and its rows into `out`."""
    request = read_request(args, OPTIONS)
    words = [arg for arg in args if arg.partition("=")[0] in ("by", "where", "metric")]
    out = request.options["out"]
    for path in write_report(request.frame, out, request.by, request.metric, words):
        print(path)
    return 0


if __name__ == "__main__":
    command(main, __doc__)
