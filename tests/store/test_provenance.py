"""Which code trained a stage: the commit and the hash of the source files."""

import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd

from analysis.provenance import warnings
from harness import plugins
from harness.rows import name_differing_files
from harness.store import provenance

ROOT = Path(__file__).parents[2]
ASK = "from harness.store.provenance import commit, code_version; print(commit(), code_version())"


def test_new_files_are_changes_of_the_code_and_other_files_are_not(tmp_path):
    checkout = tmp_path / "checkout"
    shutil.copytree(ROOT / "harness", checkout / "harness")

    def git(*words):
        who = ("-c", "user.name=me", "-c", "user.email=me@example.org")
        subprocess.run(["git", *who, *words], cwd=checkout, check=True, capture_output=True)

    def commit_and_code():
        ask = [sys.executable, "-B", "-c", ASK]
        return subprocess.run(
            ask, cwd=checkout, check=True, capture_output=True, text=True
        ).stdout.split()

    (checkout / ".gitignore").write_text("__pycache__\n")
    git("init")
    git("add", ".")
    git("commit", "-m", "all")
    clean, code = commit_and_code()
    assert "+" not in clean
    (checkout / "notes.txt").write_text("not code")
    assert commit_and_code() == [clean, code]
    (checkout / "harness" / "models" / "families" / "new.py").write_text("x = 1\n")
    changed, same = commit_and_code()
    assert changed == clean + "+changes"
    assert same == code  # the new family is an optional file: only some stages use it
    (checkout / "harness" / "train" / "new.py").write_text("x = 1\n")
    changed, other = commit_and_code()
    assert other != code
    git("add", ".")
    assert commit_and_code() == [changed, other]


def test_only_files_that_a_stage_uses_are_recorded_with_it(tmp_path):
    provenance.record(tmp_path, {"harness.models.families.vit", "harness.augment.ops"}, {})
    (entry,) = provenance.records(tmp_path)
    files = entry["files"]
    assert {"train/loop.py", "models/families/vit.py", "augment/ops.py"} <= files.keys()
    assert "models/families/__init__.py" in files
    assert not {"models/families/resnet.py", "compress/methods/nm.py", "rows.py"} & files.keys()


def test_files_that_only_one_of_two_stages_uses_do_not_differ(tmp_path):
    one = {"code": "a", "files": {"train/loop.py": "1", "models/families/vit.py": "2"}}
    other = {"code": "a", "files": {"train/loop.py": "1", "models/families/resnet.py": "3"}}
    table = [{"code": "a"}, {"code": "a"}, {"code": "a"}]
    name_differing_files(table, [one, other, one])
    assert table == [{"code": "a", "code_files": None}] * 3
    changed = {**one, "files": {**one["files"], "models/families/vit.py": "4"}}
    name_differing_files(table, [one, other, changed])
    assert [row["code_files"] for row in table] == [
        "models/families/vit.py", None, "models/families/vit.py",
    ]  # fmt: skip
    assert len({row["code"] for row in table}) == 3
    frame = pd.DataFrame([{"state": "done", "width": 1, **table[i]} for i in (0, 2)])
    (message,) = warnings(frame)
    assert message.startswith("the rows differ in code: ")
    assert message.endswith("(files models/families/vit.py)")


def test_a_new_file_that_every_stage_uses_is_named(tmp_path):
    one = {"code": "a", "files": {"train/loop.py": "1", "models/families/vit.py": "2"}}
    other = {"code": "b", "files": {**one["files"], "models/blocks.py": "3"}}
    table = [{"code": "a"}, {"code": "b"}, {"code": "c"}]
    name_differing_files(table, [one, other, {"code": "c"}])  # older versions recorded no files
    assert [row["code_files"] for row in table] == [None, "models/blocks.py", None]
    assert provenance.differing_files([one, other]) == {"models/blocks.py"}


def test_a_plugin_that_stages_used_is_named_where_its_versions_differ(tmp_path, monkeypatch):
    used, unused = [], []
    for version in ("1", "2"):
        folder = tmp_path / version
        for name in ("used", "unused"):
            (folder / name).mkdir(parents=True)
        (folder / "mine.py").write_text(f"VERSION = {version}\n")
        monkeypatch.setenv(plugins.PLUGINS, str(folder / "mine.py"))
        (plugin,) = plugins.load_plugins()
        provenance.record(folder / "used", {plugin.module}, {})
        provenance.record(folder / "unused", set(), {})
        used += provenance.records(folder / "used")
        unused += provenance.records(folder / "unused")
        del plugins._imported[plugin.path]
    assert provenance.differing_files(used) == {"plugin mine.py"}
    assert provenance.differing_files(unused) == set()
    table = [{"code": "a"}, {"code": "a"}]
    name_differing_files(table, used)
    assert [row["code_files"] for row in table] == ["plugin mine.py"] * 2
    assert table[0]["code"] != table[1]["code"]


def test_a_damaged_record_is_moved_aside_before_the_next_is_written(tmp_path):
    provenance.record(tmp_path, set(), {"engine": "ddp"})
    path = tmp_path / "provenance.json"
    path.write_text(path.read_text().replace("ddp", "dds"))
    assert provenance.records(tmp_path) == []
    provenance.record(tmp_path, set(), {"engine": "ddp"})
    assert [entry["engine"] for entry in provenance.records(tmp_path)] == ["ddp"]
    assert (tmp_path / "provenance.json.damaged-1").exists()
