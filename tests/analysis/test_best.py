"""From rows to the table: known truths, and rows that are wrong."""

import io
import math
import random
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from analysis import render, rows, stats
from analysis.best import best_per_size, warnings
from analysis.latex import escape, latex, standalone
from analysis.table import main, selected
from harness.errors import UserError

GOLDEN = Path(__file__).parent / "golden"
MAGNITUDES = ("none", 0.2, 0.5, 0.8)


def frame(curves=None, seeds=3, spread=0.01, seed=0):
    """Rows of a planted truth: `curves[width]` is the mean accuracy at each magnitude."""
    chance = random.Random(seed)
    curves = curves or {0.5: (0.80, 0.82, 0.78, 0.70), 2.0: (0.85, 0.87, 0.90, 0.88)}
    made = [
        {
            "grid": "planted",
            "trial": f"{width}-{magnitude}-{s}",
            "state": "done",
            "family": "cifar_resnet",
            "width": width,
            "sparsity": 0.0,
            "magnitude": magnitude,
            "seed": s,
            "params_nonzero": 1000 * width,
            "val_top1": round(mean + chance.gauss(0, spread), 4),
            "test_top1": round(mean - 0.01 + chance.gauss(0, spread), 4),
            "engine": "deepspeed",
            "code": "abc",
        }
        for width, means in curves.items()
        for magnitude, mean in zip(MAGNITUDES, means, strict=True)
        for s in range(seeds)
    ]
    return rows.check(pd.DataFrame(made), "planted")


def test_the_planted_best_is_found_on_validation_and_reported_on_test():
    table = frame()
    found = best_per_size(table)
    assert [line.best.magnitude for line in found] == [0.2, 0.5]
    for line, width in zip(found, (0.5, 2.0), strict=True):
        chosen = table[(table["width"] == width) & (table["magnitude"] == line.best.magnitude)]
        assert line.test == pytest.approx(chosen["test_top1"].mean())
        none = table[(table["width"] == width) & (table["magnitude"] == "none")]
        gain = chosen["test_top1"].mean() - none["test_top1"].mean()
        assert line.gain == pytest.approx(gain)


def test_test_numbers_take_part_in_no_choice():
    table = frame()
    other = table.assign(test_top1=1.0 - table["test_top1"])
    for a, b in zip(best_per_size(table), best_per_size(other), strict=True):
        assert a.best.magnitude == b.best.magnitude
        assert a.ties == b.ties


def test_pooled_spread_and_interval_are_those_of_the_textbook():
    cells = [[0.1, 0.2, 0.3], [0.5, 0.7]]
    spread = stats.pooled(cells)
    assert spread.freedom == 3
    squares = 2 * statistics.variance(cells[0]) + statistics.variance(cells[1])
    assert spread.deviation == pytest.approx(math.sqrt(squares / 3))
    # t table: 0.975 quantile at 3 degrees of freedom is 3.182
    assert stats.half_width(spread, 3) == pytest.approx(3.1824463 * spread.deviation / math.sqrt(3))
    assert stats.t_quantile(0.95, 10) == pytest.approx(1.8124611)


def test_the_interval_covers_the_truth_as_often_as_it_says():
    chance, hits = random.Random(1), 0
    for _ in range(1000):
        cells = [[chance.gauss(0, 1) for _ in range(3)] for _ in range(5)]
        half = stats.half_width(stats.pooled(cells), 3)
        hits += abs(statistics.fmean(cells[0])) <= half
    assert 0.93 <= hits / 1000 <= 0.97


def test_ties_hold_the_true_best_and_let_clear_losers_go():
    kept = covered = 0
    for seed in range(300):
        table = frame({1.0: (0.800, 0.805, 0.803, 0.70)}, spread=0.005, seed=seed)
        line = best_per_size(table)[0]
        covered += 0.2 in line.ties
        kept += 0.8 in line.ties
    assert covered / 300 >= 0.95
    assert kept == 0


def test_one_seed_has_no_interval_and_everything_ties():
    line = best_per_size(frame(seeds=1))[0]
    assert math.isnan(line.test_half)
    assert set(line.ties) == set(MAGNITUDES)
    assert "±" not in render.screen(render.table([line], [])).split("note:")[0]


def test_diverged_cells_cannot_win_and_missing_ones_are_shown():
    table = frame()
    best = (table["width"] == 2.0) & (table["magnitude"] == 0.5)
    table.loc[best & (table["seed"] == 0), ["state", "val_top1", "test_top1"]] = [
        "diverged", math.nan, math.nan,
    ]  # fmt: skip
    lost = (table["width"] == 0.5) & (table["magnitude"] == "none") & (table["seed"] == 1)
    table.loc[lost, ["state", "val_top1", "test_top1"]] = ["waiting", math.nan, math.nan]
    small, large = best_per_size(table)
    assert large.best.magnitude != 0.5
    shown = render.screen(render.table([small, large], warnings(table)))
    assert "0.5: 1 diverged" in shown
    assert "none: 1 missing" in shown
    assert "22 of 24 trials are done" in shown


def test_nothing_done_is_a_table_of_dashes():
    table = frame().assign(state="waiting", val_top1=math.nan, test_top1=math.nan)
    shown = render.screen(render.table(best_per_size(table), warnings(table)))
    assert "0 of 24 trials are done" in shown


def test_rows_made_in_different_ways_are_flagged():
    table = frame()
    table.loc[3, "engine"] = "ddp"
    table["flags"] = ""
    table.loc[4, "flags"] = "mixed_code"
    told = " ".join(warnings(table))
    assert "the rows differ in engine: ddp, deepspeed" in told
    assert "1 trials changed code" in told


@pytest.mark.parametrize("name", ["table.tex", "table.md", "table.csv", "table.txt"])
def test_golden_files(name):
    table = frame()
    shown = render.table(best_per_size(table), warnings(table))
    made = {
        "table.tex": latex, "table.md": render.markdown, "table.csv": render.csv,
        "table.txt": render.screen,
    }[name](shown)  # fmt: skip
    assert made + "\n" == (GOLDEN / name).read_text()


NASTY = r"50%_of $x$ & {y} #1 ~^ \input{/etc/passwd} <b> | ü € ±"


def test_strings_cannot_become_latex_commands():
    assert escape(r"\input{x}") == r"\textbackslash{}input\{x\}"
    for text in NASTY.split():
        assert "\\input" not in escape(text)


@pytest.mark.slow
@pytest.mark.parametrize("nasty", [False, True])
def test_the_latex_compiles_as_it_is(tmp_path, nasty):
    assert shutil.which("pdflatex"), "pdflatex is missing: make test-system installs it"
    table = frame()
    if nasty:
        table["family"] = [NASTY if w == 2.0 else "cifar_resnet" for w in table["width"]]
    (tmp_path / "table.tex").write_text(
        standalone(render.table(best_per_size(table), warnings(table)))
    )
    said = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "table.tex"],
        cwd=tmp_path, capture_output=True, text=True, errors="replace", timeout=120, check=False,
    )  # fmt: skip
    assert said.returncode == 0, said.stdout[-2000:]
    assert (tmp_path / "table.pdf").stat().st_size > 5000


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda t: t.drop(columns="val_top1"), "column 'val_top1' is missing"),
        (lambda t: t.iloc[:0], "it holds no row"),
        (lambda t: t.assign(test_top1=85.0), "divide percentages by 100"),
        (lambda t: t.assign(val_top1=-0.1), "-0.1 is outside"),
        (lambda t: t.assign(val_top1=math.inf), "inf is outside"),
        (lambda t: t.assign(val_top1="high"), "'high' is no number"),
        (lambda t: t.assign(val_top1=math.nan), "are done and have no accuracy"),
        (lambda t: t.assign(magnitude=1.5), "1.5 is outside"),
        (lambda t: t.assign(magnitude="off"), "neither `none` nor a number"),
        (lambda t: t.assign(state="finished"), "state 'finished'"),
        (lambda t: pd.concat([t, t.iloc[:1]]), "is there 2 times"),
    ],
)
def test_rows_that_are_wrong_get_a_sentence(change, text):
    table = change(frame())
    with pytest.raises(UserError) as caught:
        rows.check(table, "FILE")
    assert text in str(caught.value)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_files_of_rows_come_back_as_they_were(tmp_path, suffix):
    table = frame()
    rows.write(table, tmp_path)
    again = rows.load([], str(tmp_path / f"rows{suffix}"))
    assert list(again["magnitude"]) == list(table["magnitude"])
    shown = [render.csv(render.table(best_per_size(t), [])) for t in (table, again)]
    assert shown[0] == shown[1]


def test_a_damaged_file_and_a_missing_one_get_a_sentence(tmp_path):
    (tmp_path / "rows.parquet").write_bytes(b"PAR1 not really")
    for name in ("rows.parquet", "absent.csv"):
        with pytest.raises(UserError, match=name):
            rows.load([], str(tmp_path / name))
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(UserError, match=r"empty\.csv"):
        rows.load([], str(tmp_path / "empty.csv"))


def test_where_and_by_choose_rows_and_sizes():
    table = frame()
    assert set(selected(table, "width < 1")["width"]) == {0.5}
    assert len(best_per_size(table, ["family"])) == 1
    with pytest.raises(UserError, match="leaves no row"):
        selected(table, "width > 100")
    with pytest.raises(UserError, match="did you mean 'width'"):
        selected(table, "widht > 1")
    with pytest.raises(UserError, match="did you mean 'width'"):
        best_per_size(table, ["widht"])


def test_the_command_writes_table_rows_and_figure(tmp_path, capsys):
    rows.write(frame(), tmp_path / "in")
    assert main([f"rows={tmp_path / 'in' / 'rows.csv'}", f"out={tmp_path / 'out'}"]) == 0
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        "table.tex", "rows.csv", "rows.parquet",
        "accuracy_against_magnitude.png", "accuracy_against_magnitude.pdf",
    }  # fmt: skip
    assert (tmp_path / "out" / "rows.csv").read_text() == (tmp_path / "in/rows.csv").read_text()
    said = capsys.readouterr()
    assert "written:" in said.out
    assert said.err == ""


def test_the_analysis_imports_no_torch(tmp_path):
    rows.write(frame(), tmp_path)
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
    assert io.StringIO(said.stdout).readline().startswith(r"\begin{table}")
