"""A small grid on the command line of a launch, and how the launch refuses it."""

import pytest

from harness.commands import launch
from harness.errors import UserError

GRID = """defaults: [{override /dataset: DATASET}, {override /recipe: quick}]
model: {family: cifar_resnet, depth: 8, width: 0.25}
recipe: {epochs: 1, batch_size: 16}
run: {engine: ddp}
"""


@pytest.fixture
def written(tmp_path):
    """(dataset) -> the words that name the small grid, and a store that does not exist."""

    def written(dataset="digits"):
        grid = tmp_path / "grid.yaml"
        grid.write_text(GRID.replace("DATASET", dataset))
        return [f"grid={grid}", f"store={tmp_path / 'store'}"]

    return written


@pytest.fixture
def refusal(tmp_path, capsys, written):
    """(words, dataset) -> the error of a launch, and of its dry run; nothing is written."""

    def refusal(words, dataset="digits"):
        messages = []
        for dry_run in ("true", "false"):
            with pytest.raises(UserError) as caught:
                launch.main([*written(dataset), *words, f"dry_run={dry_run}"])
            messages.append(str(caught.value))
        assert messages[0] == messages[1]
        assert not (tmp_path / "store").exists()
        assert capsys.readouterr().out == ""
        return messages[0]

    return refusal


@pytest.fixture
def hindrance(tmp_path, capsys, written):
    """(words, dataset) -> the error of a launch, whose lines are notes of its dry run."""

    def hindrance(words, dataset="digits"):
        assert launch.main([*written(dataset), *words, "dry_run=true"]) == 0
        lines = capsys.readouterr().out.splitlines()
        with pytest.raises(UserError) as caught:
            launch.main([*written(dataset), *words])
        assert all(f"  note: {line}" in lines for line in str(caught.value).splitlines())
        assert not (tmp_path / "store").exists()
        return str(caught.value)

    return hindrance
