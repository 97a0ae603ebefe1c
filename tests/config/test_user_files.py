"""Files that a user or another person wrote: what is read, and how it is read."""

import os
from pathlib import Path

import pytest

from harness.config import grid_files, load
from harness.errors import UserError
from harness.paths import GRIDS, PROFILES
from harness.plain_yaml import plain, read_text

GOOD = """defaults:
  - override /dataset: digits
  - override /recipe: quick
model: {depth: 8}
axes: {seed: [0]}
"""
PROFILE = (PROFILES / "cluster" / "generic.yaml").read_text()


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("timeout_min: 4:00:00", 'write 240, or "4:00:00" in quotes'),
        ("timeout_min: 1-00:00:00", None),
        ("x: 4:30", 'write 270, or "4:30" in quotes'),
        ("x: -1:30", "write -90"),
        ("x: [1, 1:30.5]", "write 90.5"),
        ("seed: 010", 'write 10, or "010" in quotes'),
        ("seed: -010", "write -10"),
        ("seed: 08", "write 8"),
        ("seed: 0o10", "write the decimal number"),
        ("seed: 0b11", 'binary number: write 3, or "0b11" in quotes'),
        ("seed: -0b1_", "binary number"),
        ("epochs: 1_000", "write 1000 instead of 1_000"),
        ("lr: 0.1_5", "write 0.15"),
        ("lr: .1_5", "write .15"),
        ("lr: 1._5", "write 1.5"),
        ("flip: yes", "write true"),
        ("flip: Off", "write false"),
        ("family: no", 'write false, or "no" in quotes'),
        ("on: 1", 'write true, or "on" in quotes'),
        ("x: 2024-01-01", 'write "2024-01-01" in quotes'),
        ("x: 2024-01-01 10:00:00", "as a date"),
        ("x: [[no]]", 'line 1: YAML reads no as false: write false, or "no" in quotes'),
        ("x: '010'", None),
        ('x: "4:00:00"', None),
        ("x: [0, 0.5, -1, 10, .5, 1., 1e-3, none, null, true, a:b, x_1, 0x1F]", None),
    ],
)
def test_a_value_that_yaml_reads_otherwise_than_meant_is_refused(text, meant):
    if meant is None:
        plain(text, "the file")
        return
    with pytest.raises(UserError) as caught:
        plain(text, "the file")
    assert meant in str(caught.value)


def test_a_number_with_an_exponent_is_a_number():
    assert plain("[1e-3, 1E5, -2.5e+1, '1e-3', 1e]", "it") == [0.001, 1e5, -25.0, "1e-3", "1e"]


@pytest.mark.parametrize("text", ["!!set {a}", "!!python/name:os.system ''", "x: !!int '3'"])
def test_tags_are_refused(text):
    with pytest.raises(UserError, match="uses the YAML tag"):
        plain(text, "the file")


def test_the_list_of_grids_takes_files_of_any_bytes(tmp_path, monkeypatch):
    (tmp_path / "grid").mkdir()
    (tmp_path / "grid" / "empty.yaml").touch()
    (tmp_path / "grid" / "latin.yaml").write_bytes(b"# caf\xe9\naxes: {seed: [0]}\n")
    monkeypatch.setattr("harness.config.grid_file.GRIDS", tmp_path)
    assert grid_files() == {"empty": "", "latin": "caf\ufffd"}


@pytest.mark.parametrize("path", sorted([*GRIDS.rglob("*.yaml"), *PROFILES.rglob("*.yaml")]))
def test_every_shipped_file_is_plain(path):
    plain(read_text(path, "the file"), str(path))


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (GOOD.encode("utf-16"), "is text in UTF-16: save it as text in UTF-8"),
        ("# é\n".encode("latin-1") + GOOD.encode(), "is not text in UTF-8 (line 1)"),
        (b"PK\x03\x04rest", "is an Excel file or another archive"),
        (b"#" * (1 << 21), "is too long"),
    ],
)
def test_a_file_that_is_not_utf8_text_gets_one_sentence(tmp_path, data, text):
    path = tmp_path / "mine.yaml"
    path.write_bytes(data)
    for word in (f"grid={path}", f"cluster={path}"):
        with pytest.raises(UserError) as caught:
            load(["grid=quickstart", word] if word.startswith("cluster") else [word])
        assert text in str(caught.value)
        assert "\n" not in str(caught.value)


def test_the_mark_that_some_editors_put_first_is_no_mistake(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + GOOD.encode())
    assert len(load([f"grid={path}"]).grid.trials) == 1


def test_devices_pipes_and_folders_are_never_read(tmp_path):
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "zero.yaml").symlink_to("/dev/zero")
    (tmp_path / "folder.yaml").mkdir()
    for name in ("pipe", "zero", "folder"):
        path = tmp_path / f"{name}.yaml"
        axes = "axes.sparsity=[0.5]"
        for words in (
            [f"grid={path}"],
            ["grid=quickstart", f"cluster={path}"],
            ["grid=quickstart", f"augment.policy={path}"],
            ["grid=quickstart", axes, f"compress.magnitude_schedule='matched:{path}'"],
            [
                "grid=quickstart",
                "teacher.name=timm:x",
                "teacher.candidates=2",
                f"teacher.target_table={path}",
            ],
        ):
            with pytest.raises(UserError, match=r"is not a regular file|Is a directory"):
                load(words)


def test_a_profile_may_be_a_path_and_its_commands_are_the_users_word(tmp_path):
    path = tmp_path / "ours.yaml"
    path.write_text(PROFILE.replace("setup: [] ", "setup: [module load cuda] "))
    launch = load(["grid=quickstart", f"cluster={path}", "cluster.workers=3"])
    assert launch.cluster.slurm.setup == ("module load cuda",)
    assert (launch.cluster.name, launch.cluster.workers) == ("generic", 3)
    grid = tmp_path / "mine.yaml"
    grid.write_text(GOOD + "cluster: {slurm: {setup: [evil]}}\n")
    with pytest.raises(UserError, match=r"cluster.slurm.setup: a grid may come from anyone"):
        load([f"grid={grid}", f"cluster={path}"])
    grid.write_text(GOOD.replace("recipe: quick", f"recipe: quick\n  - override /cluster: {path}"))
    with pytest.raises(UserError, match="there is no cluster"):
        load([f"grid={grid}"])
    path.write_text(PROFILE.replace("timeout_min: 720 ", "timeout_min: 12:00:00 "))
    with pytest.raises(UserError, match="write 720"):
        load(["grid=quickstart", f"cluster={path}"])


@pytest.mark.parametrize(
    "text",
    [
        "run: {data_root: /tmp/x}\n",
        "model: {family: /tmp/x}\nrun: {data_root: '${model.family}'}\n",
    ],
)
def test_a_grid_does_not_choose_where_data_are_written(tmp_path, text):
    path = tmp_path / "mine.yaml"
    path.write_text(GOOD.replace("model: {depth: 8}\n", "") + text)
    with pytest.raises(UserError, match=r"run.data_root: a grid may come from anyone"):
        load([f"grid={path}"])
    path.write_text(GOOD)
    launch = load([f"grid={path}", "run.data_root='~'"])
    assert launch.run.data_root == str(Path.home())


@pytest.mark.parametrize("text", ["", "# a comment\n", "[]\n", "3\n"])
def test_an_empty_grid_file_is_refused(tmp_path, text):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match="is not a mapping of keys such as axes"):
        load([f"grid={path}"])


@pytest.mark.parametrize(
    "text",
    ["zip: [{}]", "zip: []", "also: [{}]", "also: []", "also: [{set: {}}]", "axes: {}", "zip: [3]"],
)
def test_an_empty_part_of_a_grid_is_refused(tmp_path, text):
    path = tmp_path / "mine.yaml"
    path.write_text(GOOD.replace("axes: {seed: [0]}\n", "") + text)
    with pytest.raises(UserError, match="1 mistake"):
        load([f"grid={path}"])


def test_a_grid_of_too_many_cells_is_refused_before_it_is_expanded(tmp_path):
    path = tmp_path / "mine.yaml"
    values = list(range(1, 1001))
    path.write_text(GOOD + f"  # more\nzip: [{{epochs: {values}}}, {{batch_size: {values}}}]\n")
    with pytest.raises(UserError, match="1,000,000,000 cells; 1,000,000 are allowed"):
        load([f"grid={path}", f"axes.seed={values}"])


@pytest.mark.parametrize("name", sorted(grid_files()))
def test_no_shipped_grid_has_an_empty_rule(name):
    for text, count in load([f"grid={name}"]).grid.rules:
        assert count != 0, text
