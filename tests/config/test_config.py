"""What a user can write, right or wrong."""

import subprocess
import sys
from pathlib import Path

import pytest

from harness.arguments import Option
from harness.commands import launch, status
from harness.config import grid_files, load
from harness.errors import UserError, command
from harness.paths import GRIDS, ROOT
from harness.sweep.plan import make_plan

INVALID = sorted((Path(__file__).parent / "invalid").glob("*.yaml"))
VERBS = {"launch": launch.main, "status": status.main}
GOOD = """defaults:
  - override /dataset: digits
  - override /recipe: quick
model: {depth: 8}
"""


def write(tmp_path, text, name="mine.yaml"):
    path = tmp_path / name
    path.write_text(GOOD + text)
    return path


def test_the_corpus_is_large_enough():
    assert len(INVALID) >= 25


@pytest.mark.slow
@pytest.mark.parametrize("path", INVALID, ids=lambda path: path.stem)
def test_of_an_invalid_grid_exactly_its_mistakes_are_told_each_with_its_place(path):
    comments = path.read_text().splitlines()
    expected = [x.removeprefix("# expect: ") for x in comments if x.startswith("# expect: ")]
    with pytest.raises(UserError) as caught:
        load([f"grid={path}"])
    message = [line.strip() for line in str(caught.value).replace(str(path), "FILE").splitlines()]
    assert message[message[0].endswith("nothing was run:") :] == expected


@pytest.mark.parametrize("name", sorted(grid_files()))
def test_every_shipped_grid_composes_and_says_what_it_is(name):
    launch = load([f"grid={name}"])
    assert make_plan(launch.grid).stages
    assert grid_files()[name]
    header = (GRIDS / "grid" / f"{name}.yaml").read_text().partition("defaults:")[0]
    lines = header.splitlines()
    message = [line.split() for line in lines]
    for word in ("command", "reference", "expect", "cost"):
        place = next((i for i, words in enumerate(message) if words[1:2] == [word]), None)
        assert place is not None, word
        assert len(message[place]) > 4, lines[place]
    assert f"# command    python -m harness.launch grid={name}" in header


def test_all_mistakes_are_listed_at_once(tmp_path):
    path = write(tmp_path, "axes: {widht: [1], seed: []}\nrun: {engin: ddp}\nnonsense: 1\n")
    with pytest.raises(UserError) as caught:
        load([f"grid={path}"])
    message = str(caught.value)
    for text in ("4 mistakes", "axes.widht", "axes.seed", "run.engin", "nonsense"):
        assert text in message


def test_all_mistakes_of_a_command_line_are_listed_with_those_of_the_grid(tmp_path):
    path = write(tmp_path, "axes: {widht: [1]}\n")
    words = ["dryrun=true", "dry_run=maybe", "cluster=slrum", "quickstart", "recipe.epochs=[1"]
    with pytest.raises(UserError) as caught:
        load([f"grid={path}", *words], {"dry_run": Option(bool)})
    message = str(caught.value)
    assert "6 mistakes" in message
    for word in ("dryrun: ", "dry_run is ", "cluster: ", "'quickstart' is ", "recipe.epochs=[1: "):
        assert f"\n  {word}" in message


def test_values_that_are_excluded_together_are_no_mistake(tmp_path):
    text = "axes: {family: [cifar_resnet, wide_resnet], depth: [10, 8]}\nexclude:\n"
    for family, depth in (("cifar_resnet", 10), ("wide_resnet", 8)):
        text += f"  - family == '{family}' and depth == {depth}\n"
    path = write(tmp_path, text)
    path.write_text(path.read_text().replace("model: {depth: 8}\n", ""))
    launch = load([f"grid={path}"])
    cells = {(trial.cell["family"], trial.cell["depth"]) for trial in launch.grid.trials}
    assert cells == {("cifar_resnet", 8), ("wide_resnet", 10)}


def test_a_profile_keeps_its_commands_under_a_grid_that_chooses_it(tmp_path):
    path = write(tmp_path, "axes: {seed: [0]}\n")
    path.write_text(path.read_text().replace("model:", "  - override /cluster: generic\nmodel:"))
    launch = load([f"grid={path}", "cluster.slurm.setup=[module load cuda]"])
    assert launch.cluster.name == "generic"
    assert launch.cluster.slurm.setup == ("module load cuda",)


def test_overrides_reach_every_kind_of_key(tmp_path):
    path = write(tmp_path, "axes: {width: [0.5]}\n")
    launch = load(
        [
            f"grid={path}",
            "recipe.epochs=3",
            "axes.seed=[0,1]",
            "run.gang=4",
            "cluster.workers=2",
            "store=elsewhere",
            "dry_run=true",
        ],
        {"dry_run": Option(bool)},
    )
    assert {trial.config.recipe.epochs for trial in launch.grid.trials} == {3}
    assert len(launch.grid.trials) == 2
    assert launch.run.gang == 4
    assert launch.cluster.workers == 2
    assert launch.store == Path("elsewhere")
    assert launch.options == {"dry_run": True}


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (
            ["seed=7"],
            "seed=7: axes.seed of the grid sets this key in each cell: write axes.seed=[7]",
        ),
        (["model.width=4"], "write axes.width=[4]"),
        (["++model.width=4"], "model.width=4: axes.width"),
        (["recipe.optimizer={lr: 0.1}"], "recipe.optimizer={lr: 0.1}: zip[0].lr of the grid"),
        (["recipe.epochs=3"], "zip[0].epochs of the grid sets this key in each cell: change it"),
        (["compress.dense_long=0.5"], "also[0].set.dense_long of the grid sets this key"),
        (["axes.model.width=[1]", "model.width=4"], "write axes.model.width=[4]"),
        (["axes.width=[1]", "axes.model.width=[2]"], "sets the same key as axes.width=[1]: keep"),
        (
            ["recipe.optimizer.momentum=0.5", "recipe.optimizer={momentum: 0.8}"],
            "is given twice",
        ),
        (["axes.magnitude=[0]", "augment={magnitude: 0.2}"], "write axes.magnitude=[0.2]"),
        (["also=[{axes: {seed: [3]}}]", "seed=7"], "in each cell: change it in the grid file"),
        (
            ["axes.compress.protect=[[classifier]]", "compress.protect.0=conv1.weight"],
            "protect.0=conv1.weight: axes.compress.protect of the grid sets this key in each cell: "
            "change it in the grid file",
        ),
        (["seed=1,2"], "seed=1,2: has several values: list them, as axes.seed=[1,2]"),
        (["axes.seed=range(3)"], "axes.seed=range(3): has several values: list them"),
        (["run.threads=1,2"], "run.threads=1,2: has several values: give one"),
        (["dataset=cifar10", "dataset.name=digits"], "sets the same key as dataset.name=digits"),
        (["width=4"], "'width' is an axis: write axes.width=[4]"),
        (["model=cifar_vit", "axes.family=[resnet]"], "write axes.family=[cifar_vit]"),
    ],
)
def test_a_word_that_an_axis_would_override_is_refused(tmp_path, words, text):
    language = """axes: {width: [0.5, 1], seed: [0, 1]}
zip: [{epochs: [1, 2], lr: [0.1, 0.2]}]
also: [{set: {dense_long: 0.75}}]
"""
    with pytest.raises(UserError) as caught:
        load([f"grid={write(tmp_path, language)}", *words])
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("key", "word", "text"),
    [
        ("model: {family: cifar_resnet}\n", "model=cifar_vit", "to cifar_resnet: leave"),
        ("dataset: {name: digits}\n", "dataset=cifar10", "or write dataset.name=cifar10"),
        ("cluster: {executor: local}\n", "cluster=generic", "or write cluster.executor=slurm"),
    ],
)
def test_a_group_that_a_key_of_the_grid_file_would_replace_is_refused(tmp_path, key, word, text):
    path = tmp_path / "mine.yaml"
    path.write_text(f"{key}axes: {{seed: [0]}}\n")
    with pytest.raises(UserError) as caught:
        load([f"grid={path}", word])
    assert f"{word}: the grid file sets" in str(caught.value)
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("axes: {depth: [8, 20]}\n", "model.depth: axes.depth sets this key in each cell"),
        ("axes: {model.depth: [8, 20]}\n", "model.depth: axes.model.depth sets this key"),
        ("axes: {width: [1], model.width: [2]}\n", "is the same key as axes.width"),
        ("axes: {width: [1]}\nzip: [{model.width: [2]}]\n", "is the same key as axes.width"),
        ("zip: [{width: [1]}, {model.width: [2]}]\n", "is the same key as zip[0].width"),
        ("also: [{set: {width: 1, model.width: 2}}]\n", "is the same key as also[0].set.width"),
        ("also: [{set: {width: 1}, axes: {width: [2]}}]\n", "is the same key as also[0].set.width"),
    ],
)
def test_one_key_with_two_values_in_a_grid_is_refused(tmp_path, text, mistake):
    with pytest.raises(UserError, match="1 mistake") as caught:
        load([f"grid={write(tmp_path, text)}"])
    assert mistake in str(caught.value)


@pytest.mark.parametrize("reference", ["${recipe.epochs", "${}", "${.}"])
def test_a_broken_reference_in_a_file_is_named_by_its_key(tmp_path, reference):
    for language, key in (
        (f"compress: {{level_epochs: '{reference}'}}\naxes: {{seed: [0]}}", "compress"),
        (f"axes: {{compress.level_epochs: [1, '{reference}']}}", "axes.compress"),
    ):
        with pytest.raises(UserError, match="1 mistake") as caught:
            load([f"grid={write(tmp_path, language)}"])
        assert f"  {key}.level_epochs" in str(caught.value)
        assert "a reference to a key is written as ${seed}" in str(caught.value)


def test_a_fixed_key_may_be_changed_in_a_further_block(tmp_path):
    path = write(tmp_path, "axes: {seed: [0]}\nalso: [{axes: {depth: [20]}}]\n")
    assert [trial.config.model.depth for trial in load([f"grid={path}"]).grid.trials] == [8, 20]


@pytest.mark.parametrize("name", sorted(grid_files()))
def test_no_shipped_grid_is_refused_as_the_file_of_a_user(tmp_path, name):
    path = tmp_path / f"{name}.yaml"
    path.write_bytes((GRIDS / "grid" / path.name).read_bytes())
    load([f"grid={path}"])


@pytest.mark.parametrize(
    ("word", "width"),
    [
        ("axes.width=[4]", {4.0}),
        ("axes.model.width=[4]", {4.0}),
        ("+axes.model.width=[4]", {4.0}),
    ],
)
def test_an_axis_is_replaced_under_either_of_its_names(tmp_path, word, width):
    path = write(tmp_path, "axes: {width: [0.5, 1], recipe.schedule.warmup_epochs: [0, 1]}\n")
    trials = load([f"grid={path}", word, "axes.recipe.schedule.warmup_epochs=[1]"]).grid.trials
    assert {trial.config.model.width for trial in trials} == width
    assert {trial.config.recipe.schedule.warmup_epochs for trial in trials} == {1.0}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("args", "text"),
    [
        ([], "which grid"),
        (["grid=quickstrat"], "did you mean 'quickstart'"),
        (["grid=no/such/file.yaml"], "there is no grid file no/such/file.yaml"),
        (["grid=quickstart", "dryrun=true"], "did you mean 'dry_run'"),
        (["grid=quickstart", "dry_run=maybe"], "dry_run is true or false"),
        (["grid=quickstart", "cluster=slrum"], "there is no cluster 'slrum'"),
        (["grid=quickstart", "cluster=../../etc"], "there is no cluster"),
        (["grid=quickstart", "recipe.epochs=0"], "recipe.epochs: should be greater than 0"),
        (["grid=quickstart", "recipe.epochs=[1"], "recipe.epochs=[1: cannot be read"),
        (["grid=quickstart", "hydra.verbose=true"], "no option or config key 'hydra'"),
        (["grid=quickstart", "++nonsense.x=1"], "no option or config key 'nonsense'"),
        (["grid=~no-such-user/x.yaml"], "no such user"),
        (["grid=quickstart", "store=~no-such-user/x"], "no such user"),
        (["grid=quickstart", "run.data_root='~no-such-user/x'"], "run.data_root: "),
        (["grid=quickstart", "run.data_root=~no-such-user/x"], "this machine has no such user"),
        (["grid=" + "x" * 300 + ".yaml"], "letters, digits"),
        (["grid=" + "x/" * 3000 + "a.yaml"], "cannot be read: File name too long"),
        (["grid=tests"], "there is no grid 'tests'"),
        (["grid=./tests/x.yaml/y.yaml"], "there is no grid file"),
        (["grid=quickstart", "quickstart"], "'quickstart' is not of the form key=value"),
        (["grid=quickstart", "recipe.epoch=3"], "did you mean 'epochs'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_command_line_gets_a_sentence(args, text):
    with pytest.raises(UserError) as caught:
        load(args, {"dry_run": Option(bool)})
    assert text in str(caught.value)


def test_all_wrong_words_are_told_at_once_that_of_the_grid_too():
    with pytest.raises(UserError, match="the command line has 3 mistakes") as caught:
        load(["grid=quickstrat", "dryrun=true", "cluster=slrum"], {"dry_run": Option(bool)})
    for text in ("did you mean 'quickstart'", "did you mean 'dry_run'", "no cluster 'slrum'"):
        assert text in str(caught.value)


def test_a_grid_file_whose_name_cannot_name_a_sweep_is_refused(tmp_path):
    path = write(tmp_path, "axes: {seed: [0]}\n", "has space.yaml")
    with pytest.raises(UserError, match="names its sweep"):
        load([f"grid={path}"])


def test_paths_need_no_quoting(tmp_path):
    folder = tmp_path / "it's, a=b [ö]"
    folder.mkdir()
    path = write(folder, "axes: {seed: [0, 1]}\n")
    launch = load([f"grid={path}", f"store={folder}/st,ore 'x'"])
    assert len(launch.grid.trials) == 2
    assert launch.store == folder / "st,ore 'x'"


def test_a_mistake_is_a_sentence_on_stderr_and_exit_code_2(tmp_path):
    path = write(tmp_path, "axes: {widht: [1]}\n")
    process = subprocess.run(
        [sys.executable, "-m", "harness.launch", f"grid={path}", f"store={tmp_path / 'store'}"],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert process.returncode == 2
    assert process.stderr.startswith("error: the grid mine has 1 mistake")
    assert "Traceback" not in process.stderr
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("ends", "code", "text"),
    [("raise KeyboardInterrupt", 130, "stopped"),
     ("open('/etc/passwd/x')", 2, "error: /etc/passwd/x: Not a directory")],
)  # fmt: skip
def test_commands_end_without_a_traceback(ends, code, text):
    body = f"from harness.errors import command\ndef main(args):\n    {ends}\ncommand(main)"
    process = subprocess.run(
        [sys.executable, "-S", "-c", body],  # without the packages
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert (process.returncode, process.stderr.strip()) == (code, text)


@pytest.mark.slow
@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("store", ["/etc/passwd/x", "/" + "x" * 300])
def test_a_store_that_cannot_be_gets_a_sentence_from_each_verb(verb, store, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [verb, "grid=quickstart", f"store={store}"])
    with pytest.raises(SystemExit) as ended:
        command(VERBS[verb])
    assert ended.value.code == 2
    assert "store=PATH" in capsys.readouterr().err


def test_the_help_names_every_command():
    """A module that ends as commands do is one."""
    root = Path(__file__).parents[2]
    for package in ("harness", "analysis"):
        for path in sorted((root / package).rglob("*.py")):
            if "\n    command(" in path.read_text():
                parts = path.relative_to(root).with_suffix("").parts
                name = ".".join(parts).removesuffix(".__main__")
                assert f"python -m {name} " in launch.usage(), name


LIGHT = """
import runpy, sys
sys.argv = ["command", *{args!r}]
try:
    runpy.run_module("harness.{module}", run_name="__main__")
except SystemExit as ended:
    assert ended.code == 0, ended.code
heavy = [m for m in ("torch", "numpy", "pandas", "matplotlib", "submitit") if m in sys.modules]
print("HEAVY", heavy)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "args", "allowed"),
    [
        ("launch", ["grid=quickstart", "dry_run=true"], {"numpy"}),
        ("status", ["grid=quickstart"], {"numpy"}),
        ("launch", ["--help"], {"numpy"}),
    ],
)
def test_looking_verbs_import_little(tmp_path, module, args, allowed):
    if args != ["--help"]:
        args = [*args, f"store={tmp_path}"]
    process = subprocess.run(
        [sys.executable, "-c", LIGHT.format(module=module, args=args)],
        capture_output=True, text=True, timeout=300, check=True,
    )  # fmt: skip
    heavy = process.stdout.rpartition("HEAVY")[2]
    for name in {"torch", "numpy", "pandas", "matplotlib", "submitit"} - allowed:
        assert f"'{name}'" not in heavy
