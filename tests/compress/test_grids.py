"""The shipped grids: which stages they share, what their arms cost, which changes are refused."""

import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest

from analysis.claims import claims
from analysis.rows import main as write_rows
from harness import config
from harness.augment.spaces import TABLES, find_space
from harness.cluster import Scheduler, Sweep
from harness.commands import launch, summary
from harness.compress import layers
from harness.compress.methods import METHODS
from harness.compress.surplus import make_graph
from harness.errors import UserError, command
from harness.models import registry
from harness.models.counts import count
from harness.paths import GRIDS, ROOT
from harness.rows import rows
from harness.states import StageState
from harness.store.claims import try_claim
from harness.store.store import Store
from harness.sweep import cost
from harness.sweep.cost import Measurement
from harness.sweep.plan import make_plan

# number of distinct stages, and of the stages of all trials together
SHARING = {
    "size_vs_magnitude": (72, 72),
    "sparsity_vs_magnitude": (84, 210),
    "pruning_schedules": (132, 150),
}


def planned(name, *words, store="nowhere"):
    launch_ = config.load([f"grid={name}", f"store={store}", *words])
    return launch_, make_plan(launch_.grid)


@pytest.mark.parametrize("name", SHARING)
def test_a_dry_run_prints_the_device_hours_that_sharing_saves_if_sizes_were_measured(
    name, tmp_path
):
    launch_, plan = planned(name, store=tmp_path)
    epochs = {stage: plan.stages[stage].recipe.epochs for stage in plan.stages}
    unshared = [epochs[stage] for path in plan.paths.values() for stage in path]
    assert (len(epochs), len(unshared)) == SHARING[name]
    states = dict.fromkeys(plan.stages, StageState("waiting"))
    for stage in plan.stages.values():
        cost.write_measurement(tmp_path, stage, Measurement(36.0, 0.5, 1 << 30, 10 << 30, "cpu"))
    sweep = Sweep(launch_, plan, Store(tmp_path), Scheduler(), states, ())
    output = summary.describe_dry_run(sweep, list(plan.stages))
    saved = sum(unshared) - sum(epochs.values())
    if saved:
        saving = f"sharing saves {saved:,} epochs of training, {saved / 100:.2f} device-hours"
    else:
        saving = "no stage is shared"
    assert saving in output
    header = Path(GRIDS / "grid" / f"{name}.yaml").read_text()
    assert re.search(rf"cost +{len(epochs)} (stages|trainings)", header)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("size_vs_magnitude", ("width",)),
        ("pruning_schedules", ()),
        ("additional_parameters", ("sparsity", "epochs")),
        ("difficulty_policies", ()),
    ],
)
def test_rows_sum_up_the_whole_path_and_the_arms_of_a_size_have_equal_budgets(name, size, tmp_path):
    launch_, plan = planned(name)
    states = {}
    for number, (stage, config_) in enumerate(plan.stages.items()):
        result = {"epochs": config_.recipe.epochs, "examples": 10 * config_.recipe.epochs}
        result |= {"train_macs": 1 + number, "timing": {"gpu_seconds": 2.0}}
        states[stage] = StageState("done", result=result)
    budgets = {}
    for row in rows(launch_.grid.name, plan, Store(tmp_path), states):
        path = plan.paths[row["trial"]]
        on_path = [states[stage].result for stage in path]
        for column in ("epochs", "examples", "train_macs"):
            assert row[column] == sum(result[column] for result in on_path)
        assert row["gpu_seconds"] == 2.0 * len(path)
        budget = row["epochs"], row["examples"]
        budgets.setdefault(tuple(row[column] for column in size), set()).add(budget)
    assert all(len(distinct) == 1 for distinct in budgets.values())


def test_claim_b_also_compares_a_form_with_a_training_of_equal_multiply_adds():
    """A form has to be better than longer training without surplus, for its size."""
    launch_, plan = planned("additional_parameters")
    states = {}
    for number, (name, stage) in enumerate(plan.stages.items()):
        result = {"epochs": stage.recipe.epochs, "timing": {"gpu_seconds": 1.0}}
        result["train_macs"] = stage.recipe.epochs * (3.3 if stage.surplus else 1.0)
        scores = {"top1": 0.5 + 0.001 * (number % 7), "loss": 1.0}
        states[name] = StageState("done", result={**result, "val": scores, "test": scores})
    table = rows(launch_.grid.name, plan, Store(Path("nowhere")), states)
    verdicts = [line for line in claims(pd.DataFrame(table)) if line.claim == "B2"]
    tested = {(line.group, line.compared.partition(" ")[0]): line.compared for line in verdicts}
    assert tested.keys() == {
        ("sparsity 0", "slice"), ("sparsity 0", "fuse"), ("sparsity 0.8", "prune_away")
    }  # fmt: skip
    assert "40 epochs" in tested["sparsity 0", "fuse"]
    # 40 epochs have as many multiply-adds as 12 epochs of the more expensive form
    (small,) = {s.model for s in plan.stages.values()}
    form = next(s.surplus for s in plan.stages.values() if s.surplus and s.surplus.form == "fuse")
    plain = count(registry.build(small, 10, seed=0), 28).macs_dense
    fused = make_graph(form, registry.build(small, 10, seed=0), lambda times: None)
    assert 40 * plain == pytest.approx(12 * count(fused, 28).macs_dense, rel=0.01)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("additional_parameters", "51 stages: 45 of 3, 6 or 12 epochs of 4,000 images, 6 of 40"),
        ("difficulty_policies", "28 trainings of 6 epochs"),
        ("difficulty_teacher", "one training of 10 epochs"),
    ],
)
def test_a_header_counts_the_stages_of_its_grid(name, sentence):
    _, plan = planned(name)
    assert sentence in (GRIDS / "grid" / f"{name}.yaml").read_text().partition("defaults:")[0]
    lengths = Counter(stage.recipe.epochs for stage in plan.stages.values())
    assert (
        lengths
        == {
            "additional_parameters": {3: 12, 6: 15, 12: 18, 40: 6},
            "difficulty_policies": {6: 28},
            "difficulty_teacher": {10: 1},
        }[name]
    )


def test_both_spaces_of_difficulty_have_as_many_trials_and_the_documented_teacher():
    _, plan = planned("difficulty_policies")
    counts = Counter(stage.augment.policy.partition("(")[0] for stage in plan.stages.values())
    calibrated = find_space("fashion_mnist_calibrated")
    assert counts == {"none": 4, "randaug_strict": 12, calibrated.name: 12}
    ((teacher, _),) = planned("difficulty_teacher")[1].stages.items()
    assert calibrated.source.startswith(f"calibrated on {teacher} from randaug_strict")
    header = (GRIDS / "grid" / "difficulty_policies.yaml").read_text()
    docs = (ROOT / "docs" / "difficulty.md").read_text()
    assert f"teacher={teacher}" in header
    assert f"teacher={teacher}" in docs


def test_the_rows_of_one_grid_are_the_table_that_another_matches(tmp_path):
    """The header of pruning_schedules names the two commands of this test."""
    _, plan = planned("sparsity_vs_magnitude")
    store = Store(tmp_path / "store")
    best = {0.0: "none", 0.5: 0.6, 0.75: 0.4, 0.875: 0.4, 0.9375: 0.2}
    for trial in plan.trials:
        name = plan.paths[trial.id][-1]
        is_best = trial.config.augment.magnitude == best[trial.config.compress.sparsity]
        scores = {"top1": 0.9 if is_best else 0.8, "loss": 1.0}
        if store.is_done(name):
            continue
        for stage in plan.paths[trial.id]:
            claim = try_claim(store.prepare(stage, plan.stages[stage]), "test")
            result = {"status": "done", "timing": {"gpu_seconds": 1.0}, "epochs": 6}
            if not store.is_done(stage) or stage == name:
                store.finish(stage, claim, {**result, "val": scores, "test": scores})
            claim.release()
    write_rows(["grid=sparsity_vs_magnitude", f"store={store.root}", f"out={tmp_path}"])
    words = [f"axes.schedule=['matched:{tmp_path}/rows.csv']", "axes.magnitude=[0.4]"]
    _, matched = planned("pruning_schedules", *words)
    for trial in matched.trials:
        policies = [matched.stages[s].augment.policy for s in matched.paths[trial.id]]
        assert [text[-4:-1] for text in policies] == ["0.4", "0.6", "0.4", "0.4", "0.2"]


def test_a_shipped_space_has_the_same_name_in_every_working_directory(tmp_path, monkeypatch):
    (name,) = {find_space(table.stem).name for table in TABLES.glob("*.yaml")}
    monkeypatch.chdir(tmp_path)
    assert find_space("fashion_mnist_calibrated").name == name
    assert find_space(name).rows == find_space("fashion_mnist_calibrated").rows
    assert re.fullmatch(r"fashion_mnist_calibrated@[0-9a-f]{8}", name)


def test_epochs_train_size_label_smoothing_and_labels_of_a_teacher_can_be_axes(tmp_path):
    axes = {
        "epochs": [2, 4],
        "train_size": [500, 1000],
        "label_smoothing": [0.0, 0.1],
        "teacher.labels": [True, "hard", "soft"],
    }
    words = [f"axes.{name}={values}" for name, values in list(axes.items())[:3]]
    _, plain = planned("difficulty_teacher", *words)
    assert len(plain.stages) == 8
    folder = Store(tmp_path).folder(next(iter(plain.stages)))
    (folder / "checkpoint").mkdir(parents=True)
    (folder / "checkpoint" / "final.pt").touch()
    stage = next(iter(plain.stages.values())).model_dump(mode="json")
    (folder / "config.json").write_text(json.dumps(stage))
    listed = ", ".join(f"{name}: {values}" for name, values in axes.items())
    words = [f"axes={{{listed}}}", f"teacher.name='{folder.name}'"]
    launch_, plan = planned("difficulty_teacher", *words, store=tmp_path)
    assert len(plan.stages) == 24
    assert len(set(plan.stages) & set(plain.stages)) == 8  # with true labels there is no teacher
    assert {"epochs", "train_size", "label_smoothing", "teacher.labels"} < set(launch_.grid.axes)


# arguments of a launch, and words of the error that they cause
REFUSED = {
    "teacher.name='0123456789abcdef' teacher.labels=soft": "has no stage 0123456789abcdef",
    "teacher.name='timm:resnet50.a1_in1k' teacher.labels=soft": "have 1,000 classes",
    "axes.schedule=['matched:TABLE']": "lacks sparsity 0.5",
    "compress.levels=[0.5,0.4]": "what is left must fall",
    "surplus.form=fuse compress.sparsity=0 model.family=cifar_vit model.depth=4": "does not suit",
}
LAUNCHES = """
import sys
sys.modules["torch"] = None  # an import of it fails
from harness.errors import command
from harness.commands.launch import main
for line in sys.stdin.read().splitlines():
    sys.argv = ["launch", *line.split(" ")]
    try:
        command(main)
    except SystemExit as exit:
        print("exit code", exit.code, file=sys.stderr)
"""
"""Program that runs a launch for each line of its input, without torch."""


def test_a_refused_launch_exits_with_2_writes_nothing_and_needs_no_torch(tmp_path):
    table = tmp_path / "table.csv"
    table.write_text("sparsity,magnitude\n0.75,0.2\n")
    store = tmp_path / "store"
    fixed = f"grid=pruning_schedules store={store} axes.magnitude=[0.4] axes.schedule=[constant]"
    lines = []
    for number, words in enumerate(REFUSED):
        base = fixed.replace(" axes.schedule=[constant]", "") if "schedule" in words else fixed
        dry = "dry_run=true" if number else "dry_run=false"
        lines.append(f"{base} {words} {dry}".replace("TABLE", str(table)))
    process = subprocess.run(
        [sys.executable, "-c", LAUNCHES], input="\n".join(lines), text=True, capture_output=True
    )
    errors = process.stderr.split("exit code 2")
    assert process.returncode == 0
    assert len(errors) == len(lines) + 1, process.stderr
    for number, sentence in enumerate(REFUSED.values()):
        assert sentence in errors[number]
    assert "Traceback" not in process.stderr
    assert process.stdout == ""
    assert not store.exists()


def test_grids_of_every_method_and_form_are_planned_without_torch(tmp_path):
    fixed = f"grid=pruning_schedules store={tmp_path} axes.magnitude=[0.4] dry_run=true"
    words = "compress.pruning=one_shot compress.sparsity=0.5 compress.scope=layer"
    lines = [
        f"{fixed} axes.schedule=[constant] {words} compress.method={m}" for m in METHODS.names()
    ]
    lines.append(f"grid=additional_parameters store={tmp_path} dry_run=true")  # all forms
    process = subprocess.run(
        [sys.executable, "-c", LAUNCHES], input="\n".join(lines), text=True, capture_output=True
    )
    assert process.stderr.count("exit code 0") == len(lines), process.stderr
    assert process.stdout.count("stages to train") == len(lines)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("compress.protect=['nosuch.weight']", "'nosuch.weight' is neither a role"),
        ("compress.protect=[classifier,conv1.weight] compress.method=nm compress.pruning=one_shot "
         "compress.sparsity=0.5 model.width=0.04", r"nm finds no layer .*\(cifar_resnet of width"),
        ("surplus.form=slice compress.sparsity=0 model.width=0.05 surplus.widths=[1.01]",
         "not wider than the small one"),
        ("compress.method=channel compress.scope=layer compress.pruning=one_shot "
         "compress.sparsity=0.5 model.family=wide_resnet model.depth=10 model.width=2",
         "layers that share them differ in the plain model"),
    ],
)  # fmt: skip
def test_settings_that_the_layers_do_not_allow_are_refused_before_anything_is_queued(
    tmp_path, words, message
):
    fixed = ["grid=pruning_schedules", "axes.magnitude=[0.4]", "axes.schedule=[constant]"]
    args = [*fixed, f"store={tmp_path}/store", *words.split(" ")]
    with pytest.raises(UserError, match=message):
        launch.main(args)
    assert not (tmp_path / "store" / "sweeps").exists()
    assert not (tmp_path / "store" / "stages").exists()


@pytest.mark.parametrize("name", ["additional_parameters", "pruning_schedules"])
def test_the_layers_of_the_models_allow_the_settings_of_shipped_grids(name):
    _, plan = planned(name)
    assert layers.misfits((stage, 2) for stage in plan.stages.values()) == []


def test_help_lists_every_shipped_grid_with_a_description(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["launch", "--help"])
    with pytest.raises(SystemExit) as exit:
        command(launch.main, launch.usage)
    assert exit.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    listed = dict(line.split(maxsplit=1) for line in lines[lines.index("grids") + 1 : -2])
    assert listed == config.grid_files()
    assert {*SHARING, "additional_parameters", "difficulty_policies"} < listed.keys()
    assert all(listed.values())
    for name in listed:
        header = (GRIDS / "grid" / f"{name}.yaml").read_text().partition("defaults:")[0]
        assert f"python -m harness.launch grid={name}" in header
