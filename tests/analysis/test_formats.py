"""The table on screen, in LaTeX, markdown, CSV and HTML: golden files, and strings that bite."""

import io
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from analysis import render, rows
from analysis.best import best_per_size, warnings
from analysis.latex import escape, number_format, standalone
from analysis.table import main
from harness.errors import UserError

GOLDEN = Path(__file__).parent / "golden"
NASTY = r"50%_of $x$ & {y} #1 ~^ [2] \input{/etc/passwd} <b onload='x'> `rm` | ü € ± ≤"


def shown_table(frame):
    return render.table(best_per_size(frame), warnings(frame))


@pytest.mark.parametrize(
    ("name", "shape"),
    [("table.tex", "latex"), ("table.md", "markdown"), ("table.csv", "csv"),
     ("table.txt", "screen"), ("table.html", "html")],
)  # fmt: skip
def test_golden_files(planted, name, shape):
    made = render.show(shown_table(planted()), shape) + "\n"
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

    Reader().feed(render.show(shown_table(table), "html"))
    assert set(seen) == {
        "table", "caption", "thead", "tbody", "tr", "th", "td", "strong", "ul", "li",
    }  # fmt: skip
    assert "<b" not in render.show(shown_table(table), "markdown").replace("\\<b", "")


def test_numbers_stand_in_columns_of_their_own_width():
    assert number_format(["80.6 ± 1.8", "-", "9.1"]) == "S[table-format=2.1(2)]"
    assert number_format(["+1.9 ± 2.5", "-0.3 ± 12.0"]) == "S[table-format=+1.1(3)]"
    assert number_format(["3", "10"]) == "S[table-format=2.0]"
    assert number_format(["none", "0.2"]) is None
    assert number_format(["-", "-"]) is None


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["plain", "nasty", "unfinished"])
def test_the_latex_compiles_as_it_is(planted, tmp_path, kind):
    assert shutil.which("pdflatex"), "pdflatex is missing: make test-system installs it"
    table = planted(seeds=1 if kind == "unfinished" else 3)
    if kind == "nasty":
        table["family"] = [NASTY if w == 2.0 else "cifar_resnet" for w in table["width"]]
    if kind == "unfinished":
        table.loc[table["width"] == 2.0, "state"] = "waiting"
    (tmp_path / "table.tex").write_text(standalone(shown_table(table)), encoding="utf-8")
    said = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "table.tex"],
        cwd=tmp_path, capture_output=True, text=True, errors="replace", timeout=120, check=False,
    )  # fmt: skip
    assert said.returncode == 0, said.stdout[-2000:]
    assert kind == "nasty" or "Overfull" not in said.stdout
    assert (tmp_path / "table.pdf").stat().st_size > 5000


def test_the_command_writes_table_rows_and_figure(planted, tmp_path, capsys):
    rows.write(planted(flags=""), tmp_path / "in")
    assert main([f"rows={tmp_path / 'in' / 'rows.csv'}", f"out={tmp_path / 'out'}"]) == 0
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        "table.tex", "rows.csv", "rows.parquet",
        "accuracy_against_magnitude.png", "accuracy_against_magnitude.pdf",
    }  # fmt: skip
    assert (tmp_path / "out" / "rows.csv").read_text() == (tmp_path / "in/rows.csv").read_text()
    said = capsys.readouterr()
    assert "written:" in said.out
    assert said.err == ""


@pytest.mark.parametrize(
    ("word", "text"),
    [("format=latx", "did you mean 'latex'"), ("metric=top5", "did you mean 'top1'")],
)
def test_the_command_names_the_nearest_valid_word(planted, tmp_path, word, text):
    rows.write(planted(), tmp_path)
    with pytest.raises(UserError, match=text):
        main([f"rows={tmp_path / 'rows.csv'}", word])


def test_the_analysis_imports_no_torch(planted, tmp_path):
    rows.write(planted(), tmp_path)
    script = (
        "import sys; from analysis.table import main; "
        f"main(['rows={tmp_path / 'rows.csv'}', 'format=latex']); "
        "assert 'torch' not in sys.modules; assert 'matplotlib' not in sys.modules; "
        "assert 'scipy.stats' not in sys.modules"
    )
    said = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert said.returncode == 0, said.stderr
    assert r"\begin{table}" in io.StringIO(said.stdout).read()
