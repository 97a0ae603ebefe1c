"""What is published under docs/results belongs to the shipped grids, and is what its rows give."""

from pathlib import Path

import pandas as pd
import pytest

from analysis import claims, table
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
