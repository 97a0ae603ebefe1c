"""The commands as functions, as a notebook calls them."""

import importlib
import subprocess
import sys

import pytest

from harness import cancel, launch, status
from harness.errors import UserError
from harness.paths import ROOT


def test_commands_are_functions_with_the_arguments_of_the_command_line(tmp_path, capsys):
    words = {"grid": "quickstart", "store": str(tmp_path / "store")}
    assert launch({"axes.seed": [0]}, dry_run=True, **words) == 0
    assert "24 trials" in capsys.readouterr().out
    found = status({"axes.width": [0.5], "axes.seed": [0, 1]}, where="seed == 1", **words)
    assert found["grid"] == "quickstart"
    assert {trial["seed"] for trial in found["trials"]} == {1}
    assert {trial["state"] for trial in found["trials"]} == {"waiting"}
    assert found["jobs"] == []
    assert cancel(**words) == 0
    with pytest.raises(UserError, match="grid is given twice"):
        status({"grid": "quickstart"}, **words)
    assert not (tmp_path / "store").exists()
    with pytest.raises(UserError, match="no grid"):
        status(grid="quickstrat")


@pytest.mark.parametrize("name", ["launch", "status", "cancel"])
def test_the_function_is_the_same_whatever_was_imported_before(name):
    importlib.import_module(f"harness.commands.{name}")
    with pytest.raises(ImportError, match=r"is a command: import harness\.commands"):
        importlib.import_module(f"harness.{name}")
    notebook = importlib.import_module("harness.notebook")
    assert getattr(importlib.import_module("harness"), name) is getattr(notebook, name)


def test_the_package_alone_imports_nothing_and_names_what_it_lacks():
    code = "import harness, sys; print([m for m in sys.modules if m.startswith('harness.')])"
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert ended.stdout == "[]\n"
    with pytest.raises(ImportError, match="cannot import name 'lunch'"):
        from harness import lunch  # noqa: F401
