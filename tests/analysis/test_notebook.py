"""The analysis from Python: functions for notebooks, and the notebook that shows them."""

import inspect
import subprocess
import sys
from pathlib import Path

import nbformat
import pandas as pd
import pytest

from analysis import claims, compare, figures, notebook, report, rows_file, table
from harness.errors import UserError

DOCS = Path(__file__).parents[2] / "docs"


def test_every_command_is_a_function_of_the_notebook_module(planted, tmp_path):
    from analysis.notebook import best, claims, compare, figures, report, rows, table

    frame = rows(planted(), where="width > 1")
    assert isinstance(frame, pd.DataFrame)
    assert set(frame["width"]) == {2.0}
    assert list(best(planted())["best"]) == [0.2, 0.5]
    (line,) = best(frame, by=["width"]).to_dict("records")
    assert line["test"] == pytest.approx(frame[frame["magnitude"] == 0.5]["test_top1"].mean())
    assert claims(planted()).set_index("claim").loc["A3", "verdict"] == "not tested"
    assert set(compare(frame, frame)["verdict"]) == {"identical"}
    assert "heat_map" in figures(frame)
    assert "<table" in table(frame)._repr_html_()
    page = report(frame, tmp_path)
    assert page.read_text().startswith("<!doctype html>")
    assert set(notebook.__all__) == {f.__name__ for f in (
        best, claims, compare, figures, report, rows, table)}  # fmt: skip


def test_functions_take_what_the_commands_take():
    """`help()` shows every option of the command, apart from the source and form of its output."""
    commands = {"table": table, "claims": claims, "compare": compare, "figures": figures,
                "report": report}  # fmt: skip
    for name, command in commands.items():
        options = {*command.OPTIONS} - {"rows", "with", "format", "out", "show"}
        options -= {"columns", "label"} if name != "table" else set()  # they return numbers
        assert options <= {*inspect.signature(getattr(notebook, name)).parameters}, name
    assert {"grid", "store", "where"} <= {*inspect.signature(notebook.rows).parameters}


def test_columns_may_be_named_as_on_the_command_line(planted):
    frame = planted(sparsity=0.5)
    for by in ("width,sparsity", "model.width,compress.sparsity", ["width", "sparsity"]):
        assert list(notebook.best(frame, by=by).columns[:2]) == ["width", "sparsity"]
    made = notebook.table(frame, by="width", where="width < 1", columns="val,seeds", label="tab:x")
    assert made.header == ("width", "validation", "seeds")
    assert [row[0] for row in made.rows] == ["0.5"]
    assert made.label == "tab:x"
    assert set(notebook.claims(frame, where="width < 1")["verdict"]) == {"not tested"}


def test_files_are_read_alone_and_together(planted, tmp_path):
    rows = notebook.rows
    rows_file.write(planted(), tmp_path)
    assert len(rows(tmp_path / "rows.csv")) == 24
    assert len(rows([tmp_path / "rows.csv", tmp_path / "rows.parquet"])) == 24
    with pytest.raises(UserError, match="the DataFrame cannot be used as rows"):
        rows(planted().drop(columns="seed"))
    with pytest.raises(UserError, match="did you mean 'top1'"):
        notebook.best(planted(), metric="top_1")
    with pytest.raises(UserError, match="these words mean nothing: nonsense"):
        rows(planted(), nonsense=1)


def test_importing_the_analysis_is_light():
    script = "import sys, analysis; assert not {'pandas', 'numpy', 'harness'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=300)


def outputs(notebook):
    """What the cells print and show, pictures left out: their bytes are matplotlib's."""
    return [
        out.get("text") or out["data"].get("text/html") or out["data"]["text/plain"]
        for cell in notebook.cells
        if cell.cell_type == "code"
        for out in cell.outputs
        if "image/svg+xml" not in out.get("data", {})
    ]


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # Jupyter's own
def test_the_example_notebook_runs_and_shows_what_it_says():
    from nbclient import NotebookClient

    notebook = nbformat.read(DOCS / "example.ipynb", as_version=4)
    shown = outputs(notebook)
    where = {"metadata": {"path": str(DOCS)}}
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources=where).execute()
    assert outputs(notebook) == shown
    assert len(shown) == 9
    assert "48 trials" in "".join(shown)
    assert not (DOCS / "runs").exists()  # a dry run leaves nothing
