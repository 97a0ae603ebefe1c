"""The commands that README, docs and the headers of grids print are valid as they are printed."""

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
"""Arguments that pages print in place of the user's own, with arguments that exist in the test."""


def printed():
    """Yield the file and the arguments of every printed `harness.launch` command."""
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
def user_folder(tmp_path_factory):
    """Return a folder with the files that the commands name, and with a teacher in its store."""
    folder = tmp_path_factory.mktemp("user_folder")
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


def test_the_commands_are_found():
    commands = list(printed())
    assert len({name for name, _ in commands}) > 12
    assert len(commands) > 30


@pytest.mark.slow
@pytest.mark.parametrize(("page", "words"), list(printed()), ids=lambda text: text[:60])
def test_a_printed_command_is_valid(page, words, user_folder, monkeypatch, capsys):
    monkeypatch.chdir(user_folder)
    monkeypatch.setitem(  # a command on docs/models.md uses the family of that page's example
        registry.FAMILIES.items, "plain_cnn", registry.Family("plain_cnn", None, None, None)
    )
    for placeholder, replacement in PLACEHOLDERS.items():
        words = re.sub(rf"{re.escape(placeholder)}(?= |$)", replacement, words)
    # without `budget`, which is refused because no size was measured in this store
    arguments = [
        w for w in shlex.split(words) if w != "dry_run=true" and not w.startswith("budget=")
    ]
    assert launch.main([*arguments, "store=store", "dry_run=true"]) == 0
    assert "stages to train" in capsys.readouterr().out


def test_the_plain_arm_of_selection_is_shared_and_the_other_arms_have_the_teacher(user_folder):
    words = ["grid=difficulty_selection", f"store={user_folder}/store"]
    plan = make_plan(config.load(words, trains=True).grid)
    policies = make_plan(config.load(["grid=difficulty_policies", f"store={user_folder}"]).grid)
    assert len(plan.stages) == 20
    shared = set(plan.stages) & set(policies.stages)
    assert shared == {name for name, stage in plan.stages.items() if stage.teacher is None}
    assert len(shared) == 4
    (teacher,) = {stage.teacher.name for stage in plan.stages.values() if stage.teacher}
    assert list(make_plan(config.load(["grid=difficulty_teacher"]).grid).stages) == [teacher]
    assert len({json.dumps(t.cell) for t in plan.trials}) == 20
    header = Path(GRIDS / "grid" / "difficulty_selection.yaml").read_text()
    assert "cost       20 trainings" in header
