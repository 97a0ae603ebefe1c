"""Tables that a grid names: where they are looked up, and what of them is part of an identity."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.cluster.submission import Submission
from harness.config import load
from harness.errors import UserError
from harness.plain_yaml import TABLES
from harness.sweep.plan import make_plan

GRID = """defaults:
  - override /dataset: digits
  - override /recipe: quick
model: {depth: 8}
axes: {magnitude: [0.5]}
"""
SPACE = "ops:\n  Identity:\n  Rotate: {values: [0, 15], signed: true}\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a grid and its tables, beside an empty working directory."""
    monkeypatch.delenv(TABLES, raising=False)
    study, work = tmp_path / "study", tmp_path / "work"
    (study / "tables").mkdir(parents=True)
    work.mkdir()
    (study / "mine.yaml").write_text(GRID)
    (study / "tables" / "gentle.yaml").write_text(SPACE)
    (study / "tables" / "rows.csv").write_text("sparsity,magnitude\n0.5,0.2\n0.75,0.3\n")
    (study / "tables" / "targets.csv").write_text("target\n0.7\n")
    monkeypatch.chdir(work)
    return study


def plan(folder, *words):
    return make_plan(load([f"grid={folder / 'mine.yaml'}", *words]).grid)


def spellings(folder, name):
    """Paths of a table: beside the grid, absolute, and from the working directory, twice."""
    return (
        f"tables/{name}",
        str(folder / "tables" / name),
        f"../study/tables/{name}",
        f"./../study/./tables/{name}",
    )


TEMPLATES = {
    "gentle.yaml": ("augment.policy='{}(n=2)'",),
    "rows.csv": (
        "compress.sparsity=0.5",
        "compress.pruning=one_shot",
        "compress.magnitude_schedule='matched:{}'",
    ),
    "targets.csv": (
        "teacher.name=0123456789abcdef",
        "teacher.candidates=2",
        "teacher.target_table='{}'",
    ),
}


@pytest.mark.parametrize("table", TEMPLATES)
def test_every_spelling_of_a_path_is_one_stage_and_one_trial(folder, table):
    plans = [
        plan(folder, *(word.format(path) for word in TEMPLATES[table]))
        for path in spellings(folder, table)
    ]
    assert len({tuple(made.stages) for made in plans}) == 1
    assert len({trial.id for made in plans for trial in made.trials}) == 1
    assert str(folder) not in plans[0].trials[0].config.model_dump_json()
    for config in plans[0].stages.values():
        assert str(folder) not in config.model_dump_json()


def test_a_table_with_another_content_or_name_is_another_stage(folder):
    words = TEMPLATES["gentle.yaml"]
    before = plan(folder, words[0].format("tables/gentle.yaml"))
    (folder / "tables" / "other.yaml").write_text(SPACE)
    other = plan(folder, words[0].format("tables/other.yaml"))
    (folder / "tables" / "gentle.yaml").write_text(SPACE.replace("15", "20"))
    after = plan(folder, words[0].format("tables/gentle.yaml"))
    assert len({*before.stages, *other.stages, *after.stages}) == 3


def test_two_spellings_on_one_axis_are_one_trial(folder):
    first, second = spellings(folder, "gentle.yaml")[:2]
    grid = load([f"grid={folder / 'mine.yaml'}", f"axes.policy=['{first}','{second}']"]).grid
    assert len(grid.trials) == 1
    assert ("axes and zip: cells that are there already", -1) in grid.rules


@pytest.mark.parametrize("table", TEMPLATES)
def test_a_table_that_is_missing_gets_a_sentence(folder, table):
    with pytest.raises(UserError, match="1 mistake") as caught:
        plan(folder, *(word.format("tables/none" + table) for word in TEMPLATES[table]))
    assert f"tables/none{table}" in str(caught.value)


@pytest.mark.parametrize("table", TEMPLATES)
def test_a_table_whose_name_is_not_utf_8_gets_a_sentence(folder, table):
    path = folder / "tables" / table
    path.rename(path.with_name(f"caf\udce9{table}"))
    with pytest.raises(UserError, match=f"caf\udce9{table}.* not UTF-8: rename the file"):
        plan(folder, *(word.format(f"tables/caf\udce9{table}") for word in TEMPLATES[table]))


READ = """
import sys
from pathlib import Path
from harness.augment import parse_policy
from harness.cluster.submission import Submission
submission = Submission.read(Path(sys.argv[1]))
for config in submission.stages.values():
    print(parse_policy(config.augment.policy))
"""


def test_a_job_elsewhere_finds_the_tables_of_its_stages_though_the_files_were_changed(folder):
    launch = load([f"grid={folder / 'mine.yaml'}", "augment.policy=tables/gentle.yaml"])
    stages = dict(make_plan(launch.grid).stages)
    path = folder / "launch" / "submission.json"
    path.parent.mkdir()
    Submission(
        store=folder, sweep="mine", run=launch.run, cluster=launch.cluster, stages=stages,
        parts=[[list(stages)]],
    ).write(path)  # fmt: skip
    (folder / "tables" / "gentle.yaml").unlink()
    environment = {key: value for key, value in os.environ.items() if key != TABLES}
    root = str(Path(__file__).parents[2])
    process = subprocess.run(
        [sys.executable, "-c", READ, str(path)],
        env={**environment, "PYTHONPATH": root},
        cwd="/", capture_output=True, text=True, timeout=300, check=True,
    )  # fmt: skip
    assert process.stdout.split() == " ".join(s.augment.policy for s in stages.values()).split()
    assert process.stdout.startswith("gentle.yaml@")


@pytest.mark.parametrize("separator", [";", "\t"])
def test_a_table_of_a_spreadsheet_is_read(folder, separator):
    words = [word.format("tables/rows.csv") for word in TEMPLATES["rows.csv"]]
    table = folder / "tables" / "rows.csv"
    with_commas = plan(folder, *words)
    table.write_text(table.read_text().replace(",", separator))
    read = plan(folder, *words)
    policies = [
        {stage.augment.policy for stage in made.stages.values()} for made in (with_commas, read)
    ]
    assert policies[0] == policies[1]
    assert "0.2" in str(policies)
