"""What README, docs and the headers of grids tell users to type composes, as it is printed."""

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest

from harness import config
from harness.augment.spaces import TABLES
from harness.commands import launch
from harness.files import write_json
from harness.models import registry
from harness.paths import GRIDS, ROOT
from harness.store.store import Store
from harness.sweep.plan import make_plan

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMAND = re.compile(r"""python -m harness\.launch( (?:"[^"\n]*"|'[^'\n]*'|[^`#>\n"'])*)""")
MINE = (
    "defaults: [{override /dataset: digits}, {override /recipe: quick}]\nmodel: {depth: 8}\n"
    "axes: {width: [0.5, 8]}\n"
)
PLACEHOLDERS = {"grid=...": "grid=quickstart", "grid=mine": "grid=mine.yaml"}


def printed():
    """(file, words) of every command that begins a sweep."""
    texts = [(page.name, page.read_text()) for page in PAGES]
    for path in sorted((GRIDS / "grid").glob("*.yaml")):
        header = path.read_text().partition("defaults:")[0]
        texts.append((path.name, re.sub(r"^# ?", "", header, flags=re.MULTILINE)))
    for name, text in texts:
        for match in COMMAND.finditer(re.sub(r"\\\n *", " ", text)):
            words = match[1].strip()
            if words and not words.startswith("--help"):
                yield name, words


@pytest.fixture(scope="module")
def somewhere(tmp_path_factory):
    """A folder with the files that the commands speak of, and a store with the teacher."""
    folder = tmp_path_factory.mktemp("somewhere")
    (folder / "mine.yaml").write_text(MINE)
    (folder / "path" / "to").mkdir(parents=True)
    (folder / "path" / "to" / "it.yaml").write_text(MINE)
    shutil.copy(TABLES / "fashion_mnist_calibrated.yaml", folder / "calibrated.yaml")
    rows = folder / "out" / "sparsity_vs_magnitude" / "rows.csv"
    rows.parent.mkdir(parents=True)
    sizes = (0.5, 0.75, 0.875, 0.9375)
    rows.write_text("sparsity,magnitude\n" + "".join(f"{size},0.2\n" for size in sizes))
    plan = make_plan(config.load(["grid=difficulty_teacher", f"store={folder}"]).grid)
    ((name, stage),) = plan.stages.items()
    teacher = Store(folder / "store").prepare(name, stage)
    (teacher / "checkpoint").mkdir()
    (teacher / "checkpoint" / "final.pt").touch()
    result = {"stage": name, "status": "done", "epochs": 10, "timing": {"gpu_seconds": 60.0}}
    write_json(teacher / "result.json", result)
    return folder


def test_there_are_commands_to_look_at():
    commands = list(printed())
    assert len({name for name, _ in commands}) > 12
    assert len(commands) > 30


@pytest.mark.slow
@pytest.mark.parametrize(("page", "words"), list(printed()), ids=lambda text: text[:60])
def test_a_printed_command_composes(page, words, somewhere, monkeypatch, capsys):
    monkeypatch.chdir(somewhere)
    monkeypatch.setitem(  # which docs/models.md has just added
        registry.FAMILIES.items, "plain_cnn", registry.Family("plain_cnn", None, None, None)
    )
    for placeholder, meant in PLACEHOLDERS.items():
        words = re.sub(rf"{re.escape(placeholder)}(?= |$)", meant, words)
    # a budget is refused where no size was measured, as here
    arguments = [
        w for w in shlex.split(words) if w != "dry_run=true" and not w.startswith("budget=")
    ]
    assert launch.main([*arguments, "store=store", "dry_run=true"]) == 0
    assert "stages to train" in capsys.readouterr().out


def test_the_arms_of_selection_share_the_plain_ones_and_differ_in_the_teacher(somewhere):
    selection = config.load(["grid=difficulty_selection", f"store={somewhere}/store"], trains=True)
    plan = make_plan(selection.grid)
    policies = make_plan(config.load(["grid=difficulty_policies", f"store={somewhere}"]).grid)
    assert len(plan.stages) == 20
    shared = set(plan.stages) & set(policies.stages)
    assert shared == {name for name, stage in plan.stages.items() if stage.teacher is None}
    assert len(shared) == 4
    (teacher,) = {stage.teacher.name for stage in plan.stages.values() if stage.teacher}
    assert list(make_plan(config.load(["grid=difficulty_teacher"]).grid).stages) == [teacher]
    assert len({json.dumps(t.cell) for t in plan.trials}) == 20
    header = Path(GRIDS / "grid" / "difficulty_selection.yaml").read_text()
    assert "cost       20 trainings" in header
