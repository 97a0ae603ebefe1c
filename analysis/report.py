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
from typing import TYPE_CHECKING

from analysis import page, render, sections
from analysis.best import (
    METRICS,
    TOP1,
    Best,
    Metric,
    best_per_size,
    mean_counts,
    size_columns,
    warnings,
)
from analysis.claims import claims
from analysis.claims import table as claims_table
from analysis.figures import figures, left_out
from analysis.rows import load, write
from analysis.table import selected
from harness.arguments import Option, split_options
from harness.errors import command
from harness.verb import callable_module

if TYPE_CHECKING:
    import pandas as pd

OPTIONS = {
    "rows": Option(),
    "by": Option(list, example="width,sparsity"),
    "where": Option(),
    "metric": Option(default="top1", choices=METRICS),
    "out": Option(required=True, example="out/report"),
}
CAPTIONS = {
    "accuracy_against_magnitude": "Test result against magnitude. Bands: 95 % t intervals; dots: "
    "seeds; circle: the magnitude that validation chose; none: no augmentation.",
    "change_against_none": "The same as change from each size's own none.",
    "optimum_against_params": "Smooth optimum on validation with its 95 % interval against "
    "non-zero parameters; circle: the magnitude that validation chose; dashes: its ties; arrow: "
    "cut off by the end of the grid.",
    "heat_map": "Test result less that of the magnitude chosen on validation; boxed: ties.",
    "accuracy_against_sparsity": "Test result at the magnitude that validation chose, against "
    "sparsity. Dashed: dense; crosses: dense with the budget of that sparsity.",
    "difficulty_against_accuracy": "Test result against a teacher's loss on the augmented images.",
}


def report(
    frame: pd.DataFrame,
    by: Sequence[str] | None = None,
    metric: Metric = TOP1,
    words: Sequence[str] = (),
) -> str:
    """The page as HTML. `words` (`metric=loss`, say) go into the command that makes it again."""
    columns = size_columns(frame, by)
    counted = mean_counts(frame, columns)
    found = best_per_size(frame, by, metric)
    told = warnings(frame)
    grids = _grids(frame)
    title = f"Sweep report: {', '.join(grids) or 'rows'}"
    done = int((frame["state"] == "done").sum())
    drawn = figures(frame, found, metric, by)
    pictures = [page.figure(name, figure, CAPTIONS[name]) for name, figure in drawn.items()]
    parts = {
        "state": ("State", _state(counted, columns, found)),
        "best": ("Best magnitude", page.sortable(render.table(found, told, metric))),
        "verdicts": (
            "Claims",
            page.sortable(claims_table(claims(frame, metric, by=by), told, metric)),
        ),
        "figures": (
            "Figures",
            _note(left_out(found)) + f'<div class="figures">{"".join(pictures)}</div>',
        ),
        "costs": ("Cost", page.sortable(sections.cost(counted, columns))),
        "made": (
            "Provenance",
            "".join(map(_note, told)) + page.sortable(sections.provenance(frame)),
        ),
        "again": ("How to reproduce", _again(grids, words)),
    }
    links = "".join(
        f'<li><a href="#{key}">{escape(name)}</a></li>' for key, (name, _) in parts.items()
    )
    body = [
        f"<header><h1>{escape(title)}</h1>",
        f"<p>{done:,} of {len(frame):,} trials are done, {len(found):,} sizes.</p>",
        f'<nav aria-label="parts"><ul>{links}</ul></nav></header>',
        "<main>",
        *(page.section(key, name, text) for key, (name, text) in parts.items()),
        "</main>",
    ]
    return page.page(title, "\n".join(body))


def write_report(
    frame: pd.DataFrame,
    out: Path,
    by: Sequence[str] | None = None,
    metric: Metric = TOP1,
    words: Sequence[str] = (),
) -> list[Path]:
    """`report.html`, and the rows that make it again; their paths."""
    from harness.files import atomic_write, make_folder

    made = report(frame, by, metric, words)
    folder = make_folder(out)
    atomic_write(folder / "report.html", made.encode())
    return [folder / "report.html", *write(frame, folder)]


def _grids(frame: pd.DataFrame) -> list[str]:
    return sorted({str(name) for name in frame["grid"].dropna()}) if "grid" in frame else []


def _note(text: str) -> str:
    return f'<p class="alarm">{escape(text)}</p>' if text else ""


def _state(frame: pd.DataFrame, columns: Sequence[str], found: Sequence[Best]) -> str:
    missing = sections.unfinished(frame, columns)
    grid = page.sortable(sections.completeness(found))
    if not missing.rows:
        return f"<p>Every trial has its result.</p>\n{grid}"
    unexplained = sum(int(row[2]) for row in missing.rows if row[0].startswith("unexplained"))
    alarm = _note(f"{unexplained:,} trials failed for a reason that no one has explained yet")
    interim = "<p>The sweep is not finished: all that follows is an interim result.</p>"
    return "\n".join([alarm if unexplained else "", interim, page.sortable(missing), grid])


def _again(grids: Sequence[str], words: Sequence[str]) -> str:
    lines = [f"python -m harness.launch {shlex.quote(f'grid={name}')}" for name in grids]
    asked = " ".join(map(shlex.quote, ["rows=rows.csv", *words, "out=."]))
    lines.append(f"python -m analysis.report {asked}")
    return (
        "<p>The first commands train what the store lacks, with the code named above. Words that "
        "the sweep was launched with besides its name (store=, overrides such as epochs=5) are not "
        "in the rows: add them; <code>dry_run=true</code> shows whether the trials are these. The "
        "last makes this page, byte for byte, from the rows beside it. Magnitudes were chosen on "
        "validation; test numbers took part in no choice.</p>\n"
        f"<pre>{escape(chr(10).join(lines))}</pre>"
    )


def main(args: list[str]) -> int:
    """The command."""
    rest, options = split_options(args, OPTIONS)
    metric = METRICS[options["metric"]]
    frame = selected(load(rest, options["rows"]), options["where"])
    words = [arg for arg in args if arg.partition("=")[0] in ("by", "where", "metric")]
    by = options["by"]
    for path in write_report(frame, Path(options["out"]), by, metric, words):
        print(path)
    return 0


callable_module(__name__)
if __name__ == "__main__":
    command(main, __doc__)
