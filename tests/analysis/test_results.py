"""What is published under docs/results belongs to the shipped grids, and is what its rows give."""

import re
from pathlib import Path

import pandas as pd
import pytest

from analysis import claims, commands, figure_text, table
from analysis.best import best_per_size
from harness.config import load
from harness.sweep.plan import make_plan

RESULTS = Path(__file__).parents[2] / "docs" / "results"
GRIDS = sorted(path.parent.name for path in RESULTS.glob("*/rows.csv"))


def test_the_study_has_all_its_grids():
    assert {"size_vs_magnitude", "additional_parameters", "difficulty_policies"} <= set(GRIDS)


@pytest.mark.parametrize("grid", GRIDS)
def test_published_rows_are_trials_of_the_shipped_grid(grid, tmp_path):
    plan = make_plan(load([f"grid={grid}", f"store={tmp_path}"]).grid)
    rows = pd.read_csv(RESULTS / grid / "rows.csv", dtype=str)
    assert {(row.trial, row.stage) for row in rows.itertuples()} == {
        (trial.id, plan.paths[trial.id][-1]) for trial in plan.trials
    }  # what was not trained is there, too, and says so


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("command", [table, claims], ids=["table", "claims"])
@pytest.mark.parametrize(("form", "suffix"), [("markdown", "md"), ("latex", "tex")])
def test_published_tables_are_what_the_rows_give(grid, command, form, suffix, capsys):
    assert command.main([f"rows={RESULTS / grid / 'rows.csv'}", f"format={form}"]) == 0
    name = command.__name__.rpartition(".")[2]
    assert capsys.readouterr().out == (RESULTS / grid / f"{name}.{suffix}").read_text()


@pytest.mark.parametrize("grid", GRIDS)
def test_published_captions_are_what_the_rows_give(grid):
    frame = commands.load([], [RESULTS / grid / "rows.csv"])
    text = (RESULTS / grid / "captions.txt").read_text()
    published = dict(paragraph.split(": ", 1) for paragraph in text.strip().split("\n\n"))
    pictures = {path.stem for path in (RESULTS / grid).glob("*.png")}
    assert pictures <= set(published)
    results = best_per_size(frame, optima=False)
    assert published == figure_text.captions(frame, results, published)


def test_headings_do_not_outrun_the_verdicts():
    """A heading that names a claim has the verdict of the table of claims."""
    text = (RESULTS / "README.md").read_text()
    headings = [line for line in text.splitlines() if line.startswith("## ")]
    rows = [row for path in RESULTS.glob("*/claims.md") for row in path.read_text().splitlines()]
    for claim in ("A1", "A2", "A3", "B1", "B2", "C1", "C2"):
        verdicts = {
            word
            for row in rows
            if row.startswith(f"| {claim} |")
            for word in ("supported", "contradicted", "undecided")
            if f"| {word} |" in row
        }
        (heading,) = [line for line in headings if re.search(rf"\b{claim}, ", line)]
        stated = heading[heading.index(f"{claim}, ") :].split(";")[0].rpartition(": ")[2]
        assert {stated} == verdicts, claim
