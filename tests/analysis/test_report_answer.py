"""The report opens with the answer, and its commands work as they are printed."""

import html
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from analysis import notebook, report, report_answer, report_source, rows_file
from analysis.best import best_per_size
from analysis.claims import claims
from analysis.columns import TOP1
from harness.cluster import read_sweep
from harness.commands import launches, status
from harness.config import load
from harness.files import make_folder

GRID = """# three trials on the digits
defaults:
  - override /dataset: digits
  - override /recipe: quick
dataset: {train_size: 256, validation_size: 128, test_size: 128}
axes: {magnitude: [none, 0.5], width: [0.25], seed: [0, 1]}
"""


def sections(page):
    return re.findall(r'<section id="([^"]*)"', page)


def blocks(page):
    """The commands and files in the page."""
    return [html.unescape(text) for text in re.findall(r"<pre>(.*?)</pre>", page, re.DOTALL)]


def words(page):
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", page)).split())


def test_the_page_opens_with_the_answer_and_the_rest_follows(planted):
    page = report.report(planted(dataset="digits", epochs=5, grid="quickstart"))
    assert sections(page) == [
        "answer", "best", "verdicts", "figures", "state", "costs", "made", "again",
    ]  # fmt: skip
    opening = words(page[: page.index('<section id="best"')].rpartition("<main>")[2])
    assert "width 0.5 (500 parameters): magnitude 0.2 is best, " in opening
    assert "width 2 (2k parameters): magnitude 0.5 is best, " in opening
    assert "A1 (the best magnitude rises with size)" in opening
    assert "Not tested, because these rows lack the trials: " in opening
    head = words(page[: page.index("<main>")].rpartition("<header>")[2])
    assert "Trained: digits, cifar_resnet, 5 epochs; 3 seeds per cell." in head


def test_a_sentence_says_what_ties_and_what_the_gain_is(planted):
    frame = planted({0.5: (0.8, 0.9, 0.7, 0.6), 2.0: (0.9, 0.9, 0.9, 0.9)}, spread=0.002)
    first, second = report_answer.best_magnitudes(best_per_size(frame), TOP1)
    assert re.search(
        r"magnitude 0\.2 is best, \d+\.\d ± 0\.\d % on test "
        r"\(\+\d+\.\d ± 0\.\d points against none\)",
        first,
    )
    assert first.endswith("every other magnitude is significantly worse on validation.")
    assert "statistically indistinguishable from it" in second
    frame = planted(seeds=1)
    alone, _ = report_answer.best_magnitudes(best_per_size(frame), TOP1)
    assert "with one seed it cannot be distinguished from the other magnitudes" in alone
    nothing = planted().assign(state="waiting", val_top1=math.nan, test_top1=math.nan)
    sentences = report_answer.best_magnitudes(best_per_size(nothing), TOP1)
    assert sentences[0] == "width 0.5 (500 parameters): no magnitude has a usable result."
    many = planted({float(width): (0.8,) * 4 for width in range(1, 31)})
    sentences = report_answer.best_magnitudes(best_per_size(many), TOP1)
    assert len(sentences) == 13
    assert sentences[-1].startswith("18 more sizes")


def test_verdicts_are_sentences(planted):
    curves = {0.5: (0.8, 0.9, 0.7, 0.6), 1.0: (0.7, 0.8, 0.9, 0.7), 2.0: (0.6, 0.7, 0.8, 0.9)}
    frame = planted(curves, spread=0.002)
    results = claims(frame)
    sentences = report_answer.verdicts(results, TOP1)
    assert re.match(
        r"A1 \(.*\): supported, effect \+0\.\d+ \(\+0\.\d+, \+0\.\d+\), p ", sentences[0]
    )
    assert sentences[-1].endswith(": A2, A3, B2, C1, C2, C3, L.")


def opened(frame, source=None):
    results = best_per_size(frame)
    return report_answer.open_questions(
        frame, results, claims(frame), source or report_source.of_rows(frame)
    )


def test_what_is_open_comes_with_the_command_that_would_settle_it(planted):
    frame = planted({1.0: (0.9, 0.9, 0.9, 0.9)}, grid="quickstart")
    page = opened(frame)
    assert "At 1 of 1 sizes several magnitudes may be best" in words(page)
    assert "before you look" in page
    assert blocks(page) == ["python -m harness.launch grid=quickstart 'axes.seed=[0,1,2,3,4,5]'"]
    frame.loc[0, ["state", "val_top1", "test_top1"]] = ["waiting", math.nan, math.nan]
    assert blocks(opened(frame))[0] == "python -m harness.launch grid=quickstart"
    assert "1 of 12 trials have no result" in words(opened(frame))
    rising = planted({1.0: (0.6, 0.7, 0.8, 0.9)}, spread=0.001, grid="quickstart")
    assert blocks(opened(rising)) == [
        "python -m harness.launch grid=quickstart 'axes.magnitude=[none,0.2,0.5,0.8,1]'"
    ]
    longer = planted({1.0: (0.6, 0.7, 0.8, 0.9), 2.0: (0.6, 0.7, 0.9, 0.8)}, spread=0.001)
    longer.loc[(longer["width"] == 2) & (longer["magnitude"] == 0.8), "magnitude"] = 1.0
    assert "[none,0.2,0.5,0.8,1]" in words(opened(longer))
    settled = planted({1.0: (0.6, 0.7, 0.9, 0.8)}, spread=0.001)
    assert "Nothing: every trial has its result" in words(opened(settled))
    settled.loc[0, ["state", "val_top1", "test_top1"]] = ["diverged", math.nan, math.nan]
    assert "Nothing" in words(opened(settled))  # its other seeds are clearly worse
    settled.loc[settled["seed"] == 0, ["state", "val_top1", "test_top1"]] = [
        "diverged", math.nan, math.nan,
    ]  # fmt: skip
    assert "At 1 of 1 sizes trainings diverged" in words(opened(settled))
    unknown = opened(frame.assign(grid="mine"))
    assert not blocks(unknown)
    assert "Add axes.seed=[0,1,2,3,4,5] to the command that launched the sweep." in words(unknown)


def test_claims_that_more_seeds_do_not_settle_are_named_with_their_group():
    rows = Path(__file__).parents[2] / "docs/results/difficulty_policies/rows.csv"
    page = words(report.report(notebook.rows(rows)))
    assert "Undecided: A1, C2." in page
    assert "C1 (width 0.25) would not be settled by more seeds: it needs more policies." in page
    for policy in ("randaug_strict(n=2)", "fashion_mnist_calibrated(n=2)"):
        assert f"B1 (policy {policy}) would not be settled by more seeds: both change" in page


def test_rows_of_a_shipped_grid_bring_its_file(planted):
    page = report.report(planted(grid="quickstart"))
    text = report_source.of_rows(planted(grid="quickstart")).sweeps["quickstart"].yaml
    assert text.strip() in blocks(page)
    assert "axes:" in text


@pytest.mark.slow
def test_commands_of_a_grid_of_ones_own_work_as_printed(tmp_path, monkeypatch):
    project = make_folder(tmp_path / "a project")
    (project / "mine.yaml").write_text(GRID)
    monkeypatch.chdir(project)
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
    args = ["grid=mine.yaml", "store=results", "recipe.epochs=2"]
    sweep = read_sweep(args, status.OPTIONS)
    make_folder(project / "results/sweeps/mine")
    launches.record(sweep, ["recipe.epochs=2"], list(sweep.plan.stages))
    assert report.main([*args, "out=page", "metric=top1"]) == 0
    page = (project / "page/report.html").read_text()
    assert GRID.strip() in blocks(page)
    commands = next(block for block in blocks(page) if block.startswith("cd ")).splitlines()
    sweep_words = "grid=mine.yaml store=results recipe.epochs=2"
    assert commands == [
        f"cd '{project}'",
        f"python -m harness.launch {sweep_words}",
        f"python -m analysis.report {sweep_words} metric=top1 out=page",
    ]
    assert "was last launched with" not in page
    commands[1] += " dry_run=true"
    process = subprocess.run(["bash", "-e"], input="\n".join(commands), text=True, cwd="/",
                             capture_output=True, check=False, timeout=300)  # fmt: skip
    assert process.returncode == 0, process.stderr
    assert "4 stages" in process.stdout or "4 trials" in process.stdout
    assert (project / "page/report.html").read_text() == page
    again = next(block for block in blocks(page) if "rows=rows.csv" in block)
    process = subprocess.run(["bash", "-e"], input=again, text=True, cwd=project / "page",
                             capture_output=True, check=False, timeout=300)  # fmt: skip
    assert process.returncode == 0, process.stderr
    load(["grid=mine.yaml", "axes.seed=[0,1,2,3]"])  # the word that adds seeds is valid

    assert report.main(["grid=mine.yaml", "store=results", "out=other"]) == 0
    other = (project / "other/report.html").read_text()
    assert "mine was last launched with recipe.epochs=2" in other


def test_the_same_page_comes_from_its_own_rows(planted, tmp_path):
    rows_file.write(planted(grid="quickstart"), tmp_path)
    assert report.main([f"rows={tmp_path}/rows.csv", f"out={tmp_path}/a"]) == 0
    assert report.main([f"rows={tmp_path}/a/rows.csv", f"out={tmp_path}/b"]) == 0
    first, second = (tmp_path / name / "report.html" for name in "ab")
    assert first.read_bytes() == second.read_bytes()
