"""Rows of grids that have not run: every trial is there, and the analysis can tell them apart."""

import pytest

from analysis import table
from harness.config import grid_files
from harness.store.rows import rows_of_grid


@pytest.mark.parametrize("name", sorted(grid_files()))
def test_a_shipped_grid_without_results_has_its_table(name, tmp_path, capsys):
    args = [f"grid={name}", f"store={tmp_path / 'store'}"]
    found = rows_of_grid(args)
    assert {row["state"] for row in found} == {"waiting"}
    assert table.main([*args, "format=csv"]) == 0
    assert len(capsys.readouterr().out.splitlines()) > 1
    assert not (tmp_path / "store").exists()


def test_an_axis_of_epochs_does_not_hide_behind_the_epochs_of_the_path(tmp_path):
    words = ["grid=quickstart", "axes.epochs=[2,4]", f"store={tmp_path}"]
    assert {row["recipe.epochs"] for row in rows_of_grid(words)} == {2, 4}
