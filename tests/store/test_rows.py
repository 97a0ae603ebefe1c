"""Rows of grids that have not run: they have every trial, and the analysis accepts them."""

import pytest

from analysis import table
from harness.config import grid_files
from harness.rows import rows_of_grid


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(grid_files()))
def test_a_shipped_grid_without_results_has_its_table(name, tmp_path, capsys):
    args = [f"grid={name}", f"store={tmp_path / 'store'}"]
    rows = rows_of_grid(args)
    assert {row["state"] for row in rows} == {"waiting"}
    assert table.main([*args, "format=csv"]) == 0
    assert len(capsys.readouterr().out.splitlines()) > 1
    assert not (tmp_path / "store").exists()


def test_rows_of_waiting_trials_have_the_epochs_of_their_path(tmp_path):
    words = [
        "grid=quickstart",
        "axes.epochs=[2,4]",
        "axes.sparsity=[0.0, 0.5]",
        f"store={tmp_path}",
    ]
    epochs = {(row["sparsity"], row["epochs"]) for row in rows_of_grid(words)}
    assert epochs == {(0.0, 2), (0.0, 4), (0.5, 4), (0.5, 6)}  # a pruned trial: two more
