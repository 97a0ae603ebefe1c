import json
import shutil
import subprocess
import sys

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from harness.errors import UserError
from harness.store.identity import stage_id
from harness.train import trackers
from harness.train.trackers import Tracker


@pytest.fixture
def tracked(stages, tmp_path):
    """Stages as deep in a store as real ones."""
    return type(stages)(tmp_path / "store" / "stages" / "ab", stages.world)


def scalars(tmp_path, config):
    """[(step, value)] of each tag in a stage's TensorBoard run."""
    events = EventAccumulator(
        str(tmp_path / "store" / "trackers" / "tensorboard" / stage_id(config))
    )
    events.Reload()
    return {
        tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]
    }


def written(stages, config):
    lines = (stages.folder(config) / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_tensorboard_gets_a_run_per_stage_with_the_metrics(tracked, others, tmp_path):
    gang = tracked.toy(), tracked.toy({"model.width": 0.5})
    outcomes = tracked.train(*gang, tracker="tensorboard")
    runs = {path.name for path in (tmp_path / "store" / "trackers" / "tensorboard").iterdir()}
    assert runs == {stage_id(config) for config in gang}
    for config, outcome in zip(gang, outcomes, strict=True):
        logged = scalars(tmp_path, config)
        lines = written(tracked, config)
        losses = [(line["step"], pytest.approx(line["train_loss"])) for line in lines]
        assert logged["train_loss"] == losses
        assert logged["val_top1"] == [
            (outcome.result["steps"], pytest.approx(outcome.result["val"]["top1"]))
        ]
        assert not any("test" in tag for tag in logged)
        (alone,) = others.train(config)
        assert others.record(config, alone) == tracked.record(config, outcome)


@pytest.mark.parametrize("lost", [False, True])
def test_a_resumed_stage_goes_on_in_its_run(tracked, tmp_path, lost):
    """Steps that are trained again, here because their checkpoint is gone, are there once."""
    config = tracked.toy()
    tracked.train_for(5, config, tracker="tensorboard")
    if lost:
        shutil.rmtree(tracked.folder(config) / "checkpoint")
    tracked.train(config, tracker="tensorboard")
    lines = written(tracked, config)
    assert [step for step, _ in scalars(tmp_path, config)["train_loss"]] == [
        line["step"] for line in lines
    ]


def test_without_a_tracker_nothing_is_written_or_imported(tracked, tmp_path):
    tracked.train(tracked.toy())
    assert not (tmp_path / "store" / "trackers").exists()
    program = (
        "import sys; from pathlib import Path; from harness.train.trackers import Tracker\n"
        "Tracker('none', Path(), 'a', {}, 0).log({'step': 1})\n"
        "print({'torch', 'tensorboard', 'wandb', 'mlflow'} & set(sys.modules))"
    )
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert process.stdout.strip() == "set()", process.stderr


def test_a_tracker_that_is_not_installed_is_named_before_training(tracked, monkeypatch):
    monkeypatch.setitem(trackers.PACKAGES, "wandb", "no_such_package")
    with pytest.raises(UserError, match=r"needs the package no_such_package.*run\.tracker=none"):
        tracked.train(tracked.toy(), tracker="wandb")
    assert not (tracked.folder(tracked.toy()) / "metrics.jsonl").exists()


@pytest.mark.parametrize("breaks", ["open", "log", "close"])
def test_a_tracker_that_fails_costs_its_copies_only(tracked, others, monkeypatch, capsys, breaks):
    def fail(*_):
        raise ConnectionError("no route to host")

    def opener(*_):
        if breaks == "open":
            fail()
        return (fail if breaks == "log" else lambda *_: None), fail

    monkeypatch.setitem(trackers._OPENERS, "tensorboard", opener)
    config = tracked.toy()
    (outcome,) = tracked.train(config, tracker="tensorboard")
    stderr = capsys.readouterr().err
    assert stderr.count("note: tensorboard fails") == 1
    assert "no route to host" in stderr
    (alone,) = others.train(config)
    assert others.record(config, alone) == tracked.record(config, outcome)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["wandb", "mlflow"])
def test_other_trackers_write_offline_with_a_run_per_stage(kind, tmp_path, monkeypatch, capsys):
    for name in ("WANDB_MODE", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    stages = ["0123456789abcdef", "fedcba9876543210"]
    both = [Tracker(kind, tmp_path, stage, {"model": {"width": 0.5}}, 0) for stage in stages]
    for value, tracker in enumerate(both):
        tracker.log({"step": 4, "train_loss": value + 0.5, "policy": "none"})
        tracker.close()
    again = Tracker(kind, tmp_path, stages[0], {"model": {"width": 0.5}}, 4)
    again.log({"step": 8, "train_loss": 0.25})
    again.close()
    assert capsys.readouterr().err == ""
    folder = tmp_path / "trackers" / kind
    if kind == "wandb":
        runs = sorted(path.name.rpartition("-")[2] for path in folder.glob("offline-run-*"))
        assert sorted(set(runs)) == stages
        return
    from mlflow import MlflowClient

    client = MlflowClient(folder.as_uri())
    experiment = client.get_experiment_by_name(trackers.EXPERIMENT).experiment_id
    runs = {run.info.run_name: run for run in client.search_runs([experiment])}
    assert sorted(runs) == stages
    history = client.get_metric_history(runs[stages[0]].info.run_id, "train_loss")
    assert [(metric.step, metric.value) for metric in history] == [(4, 0.5), (8, 0.25)]
    assert runs[stages[1]].data.params == {"model.width": "0.5"}
