"""One page about a sweep: the answer, table, claims, figures, what is missing, cost, provenance.

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

from analysis import report_answer, report_page, report_source, report_tables, rows_file
from analysis.best import SizeResult, best_per_size
from analysis.cells import mean_counts, planned, size_columns
from analysis.claims import claims, claims_table
from analysis.columns import TOP1, Metric
from analysis.commands import ROW_OPTIONS, output_folder, read_request
from analysis.figure_text import captions, subject
from analysis.figures import figures, left_out
from analysis.provenance import setting, warnings
from analysis.render import Table
from analysis.report_page import sortable
from analysis.report_source import Source, words_of_others
from analysis.table import best_table
from harness.arguments import Option, command_line
from harness.errors import command
from harness.files import atomic_write, make_folder
from harness.states import RULED_OUT

OPTIONS = {**ROW_OPTIONS, "out": Option(required=True, example="out/report")}


def report(
    frame: pd.DataFrame,
    by: Sequence[str] | None = None,
    metric: Metric = TOP1,
    words: Sequence[str] = (),
    source: Source | None = None,
    out: str = ".",
) -> str:
    """Return the page as HTML.

    `words` (such as `metric=loss`) and `out` go into the commands on the page that reproduce it;
    `source` is where the rows come from, by default a file.
    """
    source = source or report_source.of_rows(frame)
    columns = size_columns(frame, by)
    counted = mean_counts(frame, columns)
    results = best_per_size(frame, by, metric)
    messages = warnings(frame, by)
    grids = sorted({str(name) for name in frame["grid"].dropna()}) if "grid" in frame else []
    title = f"Sweep report: {', '.join(grids) or 'rows'}"
    drawn = figures(frame, results, metric, by)
    texts = captions(frame, results, drawn)
    pictures = [
        report_page.figure(name, figure, caption)
        for (name, figure), caption in zip(drawn.items(), texts.values(), strict=True)
    ]
    verdicts = claims(frame, metric, by=by)
    missing = report_tables.unfinished(frame, columns)
    answer = [
        _alarm(_unexplained(missing)),
        _headed("Best magnitude", report_answer.best_magnitudes(results, metric)),
        _headed("Verdicts", report_answer.verdicts(verdicts, metric)),
        "<h3>Open</h3>",
        report_answer.open_questions(frame, results, verdicts, source),
    ]
    parts = {
        "answer": ("Answer", "\n".join(answer)),
        "best": ("Best magnitude", sortable(best_table(results, messages, metric, setting(frame)))),
        "verdicts": (
            "Claims",
            sortable(claims_table(verdicts, messages, metric, setting(frame))),
        ),
        "figures": (
            "Figures",
            _alarm(left_out(results)) + f'<div class="figures">{"".join(pictures)}</div>',
        ),
        "state": ("State", _state(missing, results)),
        "costs": ("Cost", sortable(report_tables.cost(counted, columns))),
        "made": (
            "Provenance",
            "".join(map(_alarm, messages)) + sortable(report_tables.provenance(frame)),
        ),
        "again": ("How to reproduce", _how_to_reproduce(source, words, out)),
    }
    links = "".join(
        f'<li><a href="#{key}">{escape(name)}</a></li>' for key, (name, _) in parts.items()
    )
    chosen = planned(frame)
    done = int((chosen["state"] == "done").sum())
    ruled_out = len(frame) - len(chosen)
    left_out_trials = f", {ruled_out:,} more were ruled out" if ruled_out else ""
    body = [
        f"<header><h1>{escape(title)}</h1>",
        f"<p>{escape(subject(frame, results))} {done:,} of {len(chosen):,} trials are done"
        f"{left_out_trials}, {len(results):,} sizes.</p>",
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
    source: Source | None = None,
) -> list[Path]:
    """Write `report.html` and the rows that reproduce it into `out`; return the paths."""
    folder = output_folder(out)
    page = report(frame, by, metric, words, source, str(out))
    make_folder(folder)
    atomic_write(folder / "report.html", page.encode())
    return [folder / "report.html", *rows_file.write(frame, folder)]


def _alarm(text: str) -> str:
    return f'<p class="alarm">{escape(text)}</p>' if text else ""


def _headed(heading: str, sentences: Sequence[str]) -> str:
    items = "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences)
    return f"<h3>{heading}</h3>\n<ul>{items}</ul>"


def _unexplained(missing: Table) -> str:
    count = sum(int(row[2]) for row in missing.rows if row[0] == report_tables.UNEXPLAINED)
    return f"{count:,} trials failed for a reason that is not explained yet" if count else ""


def _state(missing: Table, results: Sequence[SizeResult]) -> str:
    seeds = sortable(report_tables.completeness(results))
    if not missing.rows:
        return f"<p>Every trial has its result.</p>\n{seeds}"
    if all(row[0] == RULED_OUT for row in missing.rows):
        settled = "<p>Every trial has its result, or the rule of the sweep ruled it out.</p>"
        return "\n".join([settled, sortable(missing), seeds])
    interim = "<p>The sweep is not finished: everything on this page is an interim result.</p>"
    return "\n".join([interim, sortable(missing), seeds])


def _how_to_reproduce(source: Source, words: Sequence[str], out: str) -> str:
    again = _pre([command_line("analysis.report", ("rows=rows.csv", *words, "out=."))])
    parts = [
        "<p>Magnitudes were chosen on validation; test numbers took part in no choice. From the "
        "rows beside this page, in its folder:</p>",
        again,
    ]
    if source.sweeps:
        commands = [f"cd {shlex.quote(str(source.folder))}"] if source.folder else []
        commands += [source.launch(name) for name in source.sweeps]
        if source.folder:
            grids = ",".join(sweep.grid for sweep in source.sweeps.values())
            report_words = (f"grid={grids}", *source.words, *words, f"out={out}")
            commands.append(command_line("analysis.report", report_words))
        parts += [
            "<p>With the code named above, this trains what the store lacks:</p>",
            _pre(commands),
            *map(_alarm, words_of_others(source)),
        ]
    for name, sweep in source.sweeps.items():
        origin = "" if source.folder else ", as shipped with the version that made this page"
        parts += [f"<h3>The grid {escape(name)}{origin}</h3>", _pre([sweep.yaml.rstrip()])]
    return "\n".join(parts)


def _pre(lines: Sequence[str]) -> str:
    return f"<pre>{escape(chr(10).join(lines))}</pre>"


def main(args: list[str]) -> int:
    """Write the page and its rows into `out`."""
    request = read_request(args, OPTIONS)
    words = [arg for arg in args if arg.partition("=")[0] in ("by", "where", "metric")]
    out = request.options["out"]
    source = None if request.options["rows"] else report_source.of_command(request.overrides)
    for path in write_report(request.frame, out, request.by, request.metric, words, source):
        print(path)
    return 0


if __name__ == "__main__":
    command(main, __doc__)
