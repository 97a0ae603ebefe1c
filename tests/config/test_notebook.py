"""The verbs as functions, as a notebook calls them."""

import pytest

from harness import cancel, launch, status
from harness.errors import UserError


def test_verbs_are_functions_with_the_words_of_the_command_line(tmp_path, capsys):
    words = {"grid": "quickstart", "store": str(tmp_path / "store")}
    assert launch({"axes.seed": [0]}, dry_run=True, **words) == 0
    assert "24 trials" in capsys.readouterr().out
    found = status({"axes.width": [0.5], "axes.seed": [0, 1]}, where="seed == 1", **words)
    assert found["grid"] == "quickstart"
    assert {trial["seed"] for trial in found["trials"]} == {1}
    assert {trial["state"] for trial in found["trials"]} == {"waiting"}
    assert found["jobs"] == []
    assert cancel(**words) == 0
    assert not (tmp_path / "store").exists()
    with pytest.raises(UserError, match="no grid"):
        status(grid="quickstrat")
