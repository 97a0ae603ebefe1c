"""The table on screen, in LaTeX, markdown, CSV and HTML: golden files, and strings that bite."""

import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from analysis import checks, claims, compare, rows_file
from analysis.best import best_per_size
from analysis.commands import FORMATS, show
from analysis.latex import escape, latex, number_format
from analysis.provenance import warnings
from analysis.table import best_table, main
from harness.errors import UserError

GOLDEN = Path(__file__).parent / "golden"
DRAWING = ("figures", "report")
NASTY = r'50%_of $x$ & {y} #1 ~^ [2] \input{/etc/passwd} <b onload="x"> `rm` | ü € ± ≤ "ł" ŋ ð'


def shown_table(frame):
    return best_table(best_per_size(frame), warnings(frame))


def shown_claims(frame):
    return claims.claims_table(claims.claims(frame), warnings(frame))


@pytest.mark.parametrize(
    ("name", "shape"),
    [("claims.tex", "latex"), ("table.tex", "latex"), ("table.md", "markdown"),
     ("table.csv", "csv"), ("table.txt", "screen"), ("table.html", "html")],
)  # fmt: skip
def test_golden_files(planted, name, shape):
    shown = shown_claims if name.startswith("claims") else shown_table
    made = show(shown(planted()), shape) + "\n"
    assert made == (GOLDEN / name).read_text(encoding="utf-8")


def test_strings_cannot_become_latex_commands():
    assert escape(r"\input{x}") == r"\textbackslash{}input\{x\}"
    assert escape("[2]") == "{[}2{]}"
    for text in NASTY.split():
        assert "\\input" not in escape(text)


def test_strings_cannot_become_html_or_markdown(planted):
    table = planted()
    table["family"] = [NASTY if w == 2.0 else "cifar_resnet" for w in table["width"]]
    seen = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag, attrs):
            seen.append(tag)

    Reader().feed(show(shown_table(table), "html"))
    assert set(seen) == {
        "table", "caption", "thead", "tbody", "tr", "th", "td", "strong", "ul", "li",
    }  # fmt: skip
    assert "<b" not in show(shown_table(table), "markdown").replace("\\<b", "")


def test_numbers_stand_in_columns_of_their_own_width():
    assert number_format(["80.6 ± 1.8", "-", "9.1"]) == "S[table-format=2.1(2)]"
    assert number_format(["+1.9 ± 2.5", "-0.3 ± 12.0"]) == "S[table-format=+1.1(3)]"
    assert number_format(["3", "10"]) == "S[table-format=2.0]"
    assert number_format(["none", "0.2"]) is None
    assert number_format(["-", "-"]) is None


def test_letters_are_those_of_any_encoding():
    assert escape('"é" Łódź ıĵ') == (
        r"{\ttfamily\char34}\'{e}{\ttfamily\char34} \L{}\'{o}d\'{z} \i{}\^{\j}"
    )
    assert escape("ð ŋ € 猫 ½") == "? ? ? ? ?"
    assert all(ord(letter) < 128 for letter in escape("".join(map(chr, range(0xA0, 0x2000)))))


def nasty(frame):
    return frame.assign(family=[NASTY if w == 2.0 else "cifar_resnet" for w in frame["width"]])


def unfinished(frame):
    frame.loc[frame["width"] == 2.0, "state"] = "waiting"
    return frame


KINDS = {"plain": lambda frame: frame, "nasty": nasty, "unfinished": unfinished}
TABLES = {
    "best": shown_table,
    "claims": shown_claims,
    "compare": lambda frame: compare.comparison_table(
        compare.compare(frame, frame.assign(val_top1=frame["val_top1"] / 2)),
        compare.notes(frame, frame), every=True,
    ),
}  # fmt: skip


def standalone():
    """The document of the docs for a wide table."""
    page = (Path(__file__).parents[2] / "docs" / "analysis.md").read_text(encoding="utf-8")
    return page.partition("```latex\n")[2].partition("```")[0]


def included():
    """A document that takes the table in as the docs say."""
    head = r"\documentclass{article}\usepackage{booktabs,siunitx}\begin{document}"
    return head + r"\input{table.tex}\end{document}"


@pytest.mark.slow
@pytest.mark.parametrize("document", [included, standalone])
@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("kind", KINDS)
def test_the_latex_compiles(planted, tmp_path, kind, name, document):
    assert shutil.which("pdflatex"), "pdflatex is missing: make test-system installs it"
    there = subprocess.run(["kpsewhich", "siunitx.sty"], capture_output=True, check=False)
    assert there.stdout, "LaTeX has no siunitx: make test-system installs it"
    shown = TABLES[name](KINDS[kind](planted(epochs=5)))
    (tmp_path / "table.tex").write_text(latex(shown), encoding="utf-8")
    (tmp_path / "paper.tex").write_text(document(), encoding="utf-8")
    process = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"],
        cwd=tmp_path, capture_output=True, text=True, errors="replace", timeout=300, check=False,
    )  # fmt: skip
    assert process.returncode == 0, process.stdout[-2000:]
    fits = kind != "nasty" if document is standalone else (kind, name) == ("plain", "best")
    assert not fits or "Overfull" not in process.stdout
    assert (tmp_path / "paper.pdf").stat().st_size > 5000


def test_the_command_writes_table_rows_and_figure(planted, tmp_path, capsys):
    rows_file.write(planted(flags=""), tmp_path / "in")
    assert main([f"rows={tmp_path / 'in' / 'rows.csv'}", f"out={tmp_path / 'out'}"]) == 0
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        "table.tex", "rows.csv", "rows.parquet",
        "accuracy_against_magnitude.png", "accuracy_against_magnitude.pdf",
    }  # fmt: skip
    assert (tmp_path / "out" / "rows.csv").read_text() == (tmp_path / "in/rows.csv").read_text()
    printed = capsys.readouterr()
    assert "written:" in printed.out
    assert printed.err == ""


@pytest.mark.parametrize(
    ("word", "text"),
    [("format=latx", "did you mean 'latex'"), ("metric=top5", "did you mean 'top1'")],
)
def test_the_command_names_the_nearest_valid_word(planted, tmp_path, word, text):
    rows_file.write(planted(), tmp_path)
    with pytest.raises(UserError, match=text):
        main([f"rows={tmp_path / 'rows.csv'}", word])


def test_the_claims_are_printed_in_every_format(planted, tmp_path, capsys):
    curves = {0.5: (0.80, 0.82, 0.78, 0.70), 2.0: (0.85, 0.87, 0.90, 0.88)}
    frame = checks.check(planted(curves, spread=0.002), "sweep")
    rows_file.write(frame, tmp_path)
    assert claims.main([f"rows={tmp_path}/rows.csv"]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert all(f"\n  {name.rjust(5)}  " in printed.out for name in claims.CLAIMS)
    shown = claims.claims_table(claims.claims(frame), [])
    for shape in FORMATS:
        assert "supported" in show(shown, shape)


@pytest.mark.slow
def test_no_command_imports_torch_nor_one_that_draws_nothing_matplotlib(planted, tmp_path):
    """In a process that warnings end, those of imports too."""
    rows_file.write(planted(), tmp_path / "a")
    rows_file.write(planted(), tmp_path / "b")
    both = [f"rows={tmp_path / name / 'rows.csv'}" for name in ("a", "b")]
    store = f"store={tmp_path / 'store'}"
    calls = (
        ("table", [both[0], "format=latex"]),
        ("claims", both[:1]),
        ("compare", [both[0], f"with={tmp_path / 'b' / 'rows.csv'}"]),
        ("rows", ["grid=quickstart", store]),
        ("table", ["grid=quickstart", store]),
        ("figures", [*both[:1], f"out={tmp_path / 'figures'}"]),
        ("report", [*both[:1], f"out={tmp_path / 'report'}"]),
    )
    script = "import importlib, sys\n"
    for name, words in calls:
        script += f"assert importlib.import_module('analysis.{name}').main({words!r}) in (0, 1)\n"
        heavy = ("torch", *(("matplotlib", "scipy.stats") if name not in DRAWING else ()))
        script += f"assert not {{*{heavy}}} & {{*sys.modules}}, {name!r}\n"
    process = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert (process.returncode, process.stderr) == (0, "")
    assert "\n\\begin{table}" in process.stdout
