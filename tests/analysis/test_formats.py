"""The table on screen, in LaTeX, markdown, CSV and HTML: golden files, and strings that bite."""

import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from analysis import checks, claims, commands, compare, notebook, rows_file, table
from analysis.best import best_per_size
from analysis.columns import TOP1
from analysis.commands import FORMATS, show
from analysis.latex import escape, latex, number_format
from analysis.provenance import setting, warnings
from analysis.render import format_count, format_interval, format_levels, format_score
from analysis.table import best_table, main
from harness.errors import UserError

GOLDEN = Path(__file__).parent / "golden"
RESULTS = Path(__file__).parents[2] / "docs" / "results"
DRAWING = ("figures", "report")
NASTY = r'50%_of $x$ & {y} #1 ~^ [2] \input{/etc/passwd} <b onload="x"> `rm` | ü € ± ≤ "ł" ŋ ð'


def shown_table(frame):
    return best_table(best_per_size(frame), warnings(frame), settings=setting(frame))


def shown_claims(frame):
    return claims.claims_table(claims.claims(frame), warnings(frame), settings=setting(frame))


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
    assert number_format(["80.6 ± 1.8", "-", "9.1"]) == "S[table-format=2.1(1.1)]"
    assert number_format(["+1.9 ± 2.5", "-0.3 ± 12.0"]) == "S[table-format=+1.1(2.1)]"
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


def many_columns(planted):
    """Four columns of sizes, eight magnitudes that all tie, lengths that differ, 10,000 images."""
    magnitudes = ("none", *(at / 10 for at in range(1, 8)))
    parts = [
        planted(dict.fromkeys((0.125, 1.0), (0.8,) * 8), magnitudes=magnitudes, seed=at,
                policy="fashion_mnist_calibrated(n=2)", sparsity=sparsity, schedule=schedule,
                epochs=epochs, test_images=10_000)
        for at, (sparsity, schedule, epochs) in enumerate(
            [(0.0, "constant", 5), (0.9375, "constant", 30), (0.9375, "falling", 300)])
    ]  # fmt: skip
    frame = pd.concat(parts).drop(columns="trial")
    return checks.check(frame, "FILE")


def every_table(planted):
    """LaTeX of tables of all kinds, by name."""
    for kind, change in KINDS.items():
        for name, shown in TABLES.items():
            yield f"{name} {kind}", latex(shown(change(planted(epochs=5, dataset="cifar10"))))
    for name, shown in TABLES.items():
        yield f"{name} many", latex(shown(many_columns(planted)))
    every = ["params", "epochs", "best", "ties", "optimum", "val", "test", "sampling", "gain",
             "seeds", "incomplete", "differs_in"]  # fmt: skip
    results = best_per_size(many_columns(planted))
    yield "every column", latex(best_table(results, [], columns=every))
    for file in sorted(RESULTS.glob("*/rows.csv")):
        frame = commands.load([], [file])
        yield f"best {file.parent.name}", latex(shown_table(frame))
        yield f"claims {file.parent.name}", latex(shown_claims(frame))


DOCUMENTS = {
    "one column": r"\documentclass{article}",
    "two columns": r"\documentclass[twocolumn]{article}",
    "NeurIPS": r"\documentclass{article}\usepackage[textwidth=5.5in,textheight=9in]{geometry}",
}


@pytest.mark.slow
@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_table_fits_into_every_document(planted, tmp_path, document):
    """What the head of a table asks for is enough to compile it, and nothing is too wide."""
    assert shutil.which("pdflatex"), "pdflatex is missing: make test-system installs it"
    made = dict(every_table(planted))
    packages = {line for tex in made.values() for line in tex.splitlines()[:1]}
    body = [DOCUMENTS[document], *(line.partition("needs ")[2] for line in packages)]
    body.append(r"\begin{document}")
    for name, tex in made.items():
        body += [rf"\typeout{{TABLE {name}}}", tex, r"\clearpage"]
    (tmp_path / "paper.tex").write_text("\n".join([*body, r"\end{document}"]), encoding="utf-8")
    process = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"],
        cwd=tmp_path, capture_output=True, text=True, errors="replace", timeout=300, check=False,
    )  # fmt: skip
    assert process.returncode == 0, process.stdout[-2000:]
    too_wide = {
        part.partition("\n")[0] for part in process.stdout.split("TABLE ") if "Overfull" in part
    }
    assert not too_wide


def test_a_table_spans_two_columns_only_where_it_has_to(planted):
    results = best_per_size(planted())
    narrow = best_table(results, [], columns=["best", "test"])
    assert r"\begin{table}[t]" in latex(narrow)
    assert r"\begin{table*}[t]" in latex(shown_claims(planted()))
    assert "resizebox" not in latex(shown_claims(planted()))


def test_latex_breaks_no_line_before_a_unit():
    assert escape("a 95 % interval, 80 ± 2") == r"a 95~\% interval, 80~$\pm$~2"


def test_numbers_are_never_minus_zero_nor_plus_minus_zero(planted):
    assert format_score(-0.0001, signed=True) == "0.0"
    assert format_interval(0.8, 0.0) == "80.0"
    assert format_interval(0.8, 0.0001) == "80.0 ± 0.1"
    assert format_interval(-0.0001, 0.02, signed=True) == "0.0 ± 2.0"
    assert (format_count(1e30), format_count(2.5e12)) == ("1e+30", "2.5T")


def test_runs_of_neighbours_are_ranges():
    levels = ("none", 0.1, 0.2, 0.3, 0.5)
    assert format_levels(("none", 0.1, 0.2, 0.5), levels) == "none to 0.2, 0.5"
    assert format_levels((0.1, 0.2), levels) == "0.1, 0.2"


def test_every_column_of_the_table_is_documented(planted):
    available = table._columns(best_per_size(planted()), TOP1, ["width"])
    page = (Path(__file__).parents[2] / "docs" / "analysis.md").read_text(encoding="utf-8")
    for name in (column.name for column in available):
        assert f"`{name}`" in page
        assert name in re.findall(r"\w+", table.__doc__)


def test_columns_that_say_nothing_are_left_out_and_can_be_asked_for(planted):
    table = shown_table(planted(epochs=5))
    assert table.header == ("width", "parameters", "best magnitude", "ties", "smooth optimum",
                            "test", "gain")  # fmt: skip
    frame = planted(epochs=5)
    frame.loc[0, "state"] = "waiting"
    assert {"seeds", "incomplete"} <= {*shown_table(frame).header}
    asked = best_table(best_per_size(planted()), [], columns=["val", "seeds", "incomplete"])
    assert asked.header == ("width", "validation", "seeds", "incomplete")
    assert "Ties" not in " ".join(asked.notes)
    with pytest.raises(UserError, match="no column 'tset'"):
        best_table(best_per_size(planted()), [], columns=["tset"])


def test_csv_and_parquet_hold_numbers(planted, tmp_path):
    rows_file.write(planted(flags=""), tmp_path)
    source = f"rows={tmp_path}/rows.csv"
    main([source, f"out={tmp_path}/out"])
    for frame in (
        pd.read_csv(tmp_path / "out/table.csv"), pd.read_parquet(tmp_path / "out/table.parquet")
    ):  # fmt: skip
        line = best_per_size(planted())[0]
        row = frame.iloc[0]
        assert row["params_nonzero"] == 500
        assert row["test"] == pytest.approx(100 * line.test)
        assert row["gain_half"] == pytest.approx(100 * line.gain_half)
        assert str(row["best"]) == "0.2"
        numbers = frame.drop(columns=["best", "ties", "open", "ruled_out", "differs_in"])
        assert set(numbers.dtypes.map(lambda dtype: dtype.kind)) <= {"i", "f"}
    for shown in (shown_claims(planted()), TABLES["compare"](planted())):
        assert "±" not in show(shown, "csv").partition("none to")[0]
        assert (
            shown.frame()
            .filter(regex="half$|^p$|low$|high$")
            .dtypes.map(lambda d: d.kind == "f")
            .all()
        )


def test_a_caption_says_what_was_trained_and_how_often(planted):
    frame = planted(dataset="cifar10", depth=20, policy="randaug(n=2)", epochs=90)
    for made in (best_table(best_per_size(frame), [], settings=setting(frame)),):
        for part in ("for each width", "cifar10", "cifar_resnet", "depth 20", "90 epochs",
                     "randaug(n=2)", "3 seeds"):  # fmt: skip
            assert part in made.caption
    one = planted(seeds=1)
    assert best_table(best_per_size(one), []).caption.endswith("1 seed.")


def test_lengths_are_a_column_wherever_sizes_differ_in_them(planted):
    """A zip of epochs and learning rates: the rate alone would get the credit."""
    parts = [planted({1.0: (0.8, 0.82, 0.78, 0.7)}, epochs=epochs, lr=lr, examples=1000 * epochs)
             for epochs, lr in ((5, 0.1), (9, 0.2))]  # fmt: skip
    frame = checks.check(pd.concat(parts).drop(columns="trial"), "FILE")
    shown = shown_table(frame)
    assert shown.header[:2] == ("learning rate", "parameters")
    at = shown.header.index("epochs")
    assert [row[at] for row in shown.rows] == ["5", "9"]
    assert "examples" not in shown.header  # they follow from the epochs
    other = shown_table(frame.assign(epochs=5))
    assert other.header.index("examples")
    assert "epochs" not in other.header
    epochs = [5 if width < 1 else 9 for width in planted()["width"]]
    verdict = claims.claims(planted().assign(epochs=epochs), unequal_budgets=True)[0]
    assert "paths of 5 to 9 epochs" in verdict.compared


def test_where_none_is_best_the_optimum_is_no_number(planted):
    frame = planted({1.0: (0.9, 0.8, 0.82, 0.7)})
    shown = shown_table(frame)
    at = shown.header.index("smooth optimum")
    assert re.fullmatch(r"≤0\.2 \(≤0\.2, 0\.\d+\)", shown.rows[0][at])
    assert any("if it is best, only a bound is known" in note for note in shown.notes)
    assert shown.frame()["optimum"].isna().all()
    assert notebook.best(frame)["optimum"].isna().all()


def test_the_finite_test_set_is_told_apart_from_the_seeds(planted):
    frame = planted({1.0: (0.8, 0.8, 0.8, 0.8)}, test_images=10_000)
    shown = best_table(best_per_size(frame), [])
    (note,) = (note for note in shown.notes if "not the finite test set" in note)
    assert "10,000 images: another ± 0.8" in note
    half = shown.frame()["sampling_half"][0]
    assert half == pytest.approx(196 * (0.79 * 0.21 / 10_000) ** 0.5, rel=0.02)


def test_labels_name_the_sweep_or_are_chosen(planted, tmp_path, capsys):
    rows_file.write(planted(grid="my_sweep"), tmp_path)
    source = [f"rows={tmp_path}/rows.csv", "format=latex"]
    labels = []
    for verb, words in ((main, []), (claims.main, []), (main, ["label=tab:mine"])):
        verb([*source, *words])
        labels += [line for line in capsys.readouterr().out.splitlines() if r"\label" in line]
    assert [label.strip() for label in labels] == [
        r"\label{tab:my-sweep:best-magnitude}", r"\label{tab:my-sweep:claims}",
        r"\label{tab:mine}",
    ]  # fmt: skip
    with pytest.raises(UserError, match="is not a label"):
        main([*source, "label=a}b"])


def test_claims_have_one_line_for_all_that_were_not_tested(planted):
    shown = shown_claims(planted())
    assert [row[0] for row in shown.rows] == ["A1", "B1"]
    (note,) = (note for note in shown.notes if note.startswith("Not tested"))
    assert all(name in note for name in ("A2", "A3", "B2", "C1", "C2", "C3", "L"))
    assert len(shown.frame()) == 9


def test_the_command_writes_table_rows_and_figure(planted, tmp_path, capsys):
    rows_file.write(planted(flags=""), tmp_path / "in")
    assert main([f"rows={tmp_path / 'in' / 'rows.csv'}", f"out={tmp_path / 'out'}"]) == 0
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        "table.tex", "table.csv", "table.parquet", "rows.csv", "rows.parquet",
        "accuracy_against_magnitude.png", "accuracy_against_magnitude.pdf",
    }  # fmt: skip
    assert (tmp_path / "out" / "rows.csv").read_text() == (tmp_path / "in/rows.csv").read_text()
    printed = capsys.readouterr()
    assert "written:" in printed.out
    assert printed.err == ""


@pytest.mark.parametrize(
    ("word", "text"),
    [("format=latx", "did you mean 'latex'"), ("metric=top_1", "did you mean 'top1'")],
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
    assert all(f"{name} " in printed.out for name in claims.CLAIMS if name != "R")
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
    assert "\n\\begin{table" in process.stdout
