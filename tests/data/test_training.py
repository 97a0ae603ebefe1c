"""Stages on image files: stopped in the middle of an epoch, they resume with the next batch."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from analysis.provenance import warnings
from harness import rows
from harness.data import pipeline
from harness.data.dataset_file import read_values
from harness.data.write import main as write
from harness.files import write_json
from harness.models import registry
from harness.models.counts import count
from harness.run_schema import RunConfig
from harness.schema import StageConfig, TeacherConfig
from harness.store import provenance
from harness.store.identity import identity, stage_id
from harness.store.store import checkpoint_steps
from harness.train import Member, step_timing, train_gang
from harness.train.stage import Stage

PHOTOS = Path(__file__).with_name("photos.yaml")
STAGE = {
    "seed": 3,
    "dataset": {
        **read_values(PHOTOS),
        "resolution": 48,
        "start_resolution": 32,
        "crop_scale": [0.3, 1.0],
    },
    "model": {"family": "cifar_resnet", "depth": 8, "width": 0.25},
    "augment": {"policy": "randaug(n=2, m=0.3)", "crop_padding": 0, "flip": True},
    "recipe": {"epochs": 3, "batch_size": 8, "optimizer": {"lr": 0.1}},
}  # 4 steps an epoch, 12 in all
PRUNE = {
    "sparsity": 0.5,
    "method": "magnitude",
    "scope": "global",
    "protect": ["classifier"],
    "rewind": "learning_rate",
    "reestimate_batch_norm": True,
}


def config(**changes):
    return StageConfig.model_validate({**json.loads(json.dumps(STAGE)), **changes})


def train(world, folder, configs, root, loader, steps=10**6, **run):
    """Train stages in folders below `folder`, for at most `steps` steps; return their outcomes."""
    members = []
    for stage in configs:
        stage_folder = folder / stage_id(stage)
        stage_folder.mkdir(parents=True, exist_ok=True)
        parent = folder / stage.parent if stage.parent else None
        members.append(Member(stage_id(stage), stage, stage_folder, parent))
    remaining = [steps]

    def stop():
        remaining[0] -= 1
        return remaining[0] <= 0

    run = {"engine": "ddp", "data_root": str(root), "loader": loader, "loader_threads": 2, **run}
    return train_gang(members, RunConfig(**run), world, stop, lambda: None)


def facts(outcome):
    """Return the part of an outcome that must be the same to the bit in a repetition."""
    result = {key: value for key, value in outcome.result.items() if key != "timing"}
    return result, {split: bits.tolist() for split, bits in outcome.correct.items()}


@pytest.fixture
def seen(monkeypatch):
    """Epoch and ids of every batch that a stage was trained on, in order."""
    ids = []
    train_step = Stage.train_step

    def watched(self, batch, epoch):
        ids.append((epoch, batch.ids.tolist()))
        return train_step(self, batch, epoch)

    monkeypatch.setattr(Stage, "train_step", watched)
    return ids


@pytest.mark.slow
@pytest.mark.parametrize("loader", ["ffcv", "imagefolder"])
def test_a_stage_stopped_in_mid_epoch_sees_the_remaining_batches_and_ends_in_the_same_bits(
    world, tree, betons, tmp_path, seen, capsys, loader
):
    root = betons if loader == "ffcv" else tree
    dense = config()
    (unbroken,) = train(world, tmp_path / "a", [dense], root, loader)
    expected = seen.copy()
    assert len(expected) == 12
    seen.clear()
    for steps in (3, 4):
        (stopped,) = train(world, tmp_path / "b", [dense], root, loader, steps)
        assert stopped.status == "stopped"
    (resumed,) = train(world, tmp_path / "b", [dense], root, loader, loader_threads=1)
    assert seen == expected
    assert facts(resumed) == facts(unbroken)
    (record,) = provenance.records(tmp_path / "a" / stage_id(dense))
    stored = {"ffcv": "compress_probability=0", "imagefolder": "original"}[loader]
    records = [record[key] for key in ("loader", "stored", "split_hash")]
    assert records == [loader, stored, unbroken.result["split_hash"]]
    assert {"pillow", "opencv-python"} < set(record["packages"])  # they decode and resize
    output = capsys.readouterr().out.splitlines()
    assert f"loader {loader}: set by run.loader" in output


def test_differently_stored_pixels_are_flagged(world, tree, betons, tmp_path):
    """A stage trained on both has a flag in its row, and a table with a row of each warns."""
    words = [f"dataset={PHOTOS}", f"source={tree / 'photos'}", "validation_size=9"]
    write([*words, f"out={tmp_path / 'small/photos'}", "max_resolution=64"])
    for root, steps in ((betons, 3), (tmp_path / "small", 10**6)):
        train(world, tmp_path / "a", [config()], root, "ffcv", steps)
    records = provenance.records(tmp_path / "a" / stage_id(config()))
    assert rows._flags([records]) == ["mixed_stored"]
    frame = pd.DataFrame([{"state": "done", "stored": record["stored"]} for record in records])
    small = "max_resolution=64 jpeg_quality=90 compress_probability=1"
    assert warnings(frame) == [f"the rows differ in stored: compress_probability=0, {small}"]


def test_a_gang_on_one_stream_of_batches_equals_each_stage_alone(world, betons, tmp_path):
    plain = {"policy": "none", "crop_padding": 0, "flip": False}
    stages = [config(), config(augment=plain)]
    together = train(world, tmp_path / "a", stages, betons, "ffcv")
    for stage, outcome in zip(stages, together, strict=True):
        (alone,) = train(world, tmp_path / "b", [stage], betons, "ffcv")
        assert facts(alone) == facts(outcome)
    assert together[0].result["weights_sha256"] != together[1].result["weights_sha256"]


def test_a_pruned_stage_estimates_batch_norm_from_the_files(world, betons, tmp_path):
    dense = config()
    train(world, tmp_path, [dense], betons, "ffcv")
    child = config(parent=stage_id(dense), prune=PRUNE)
    (outcome,) = train(world, tmp_path, [child], betons, "auto")
    assert outcome.status == "done"
    assert outcome.result["sparsity"] == pytest.approx(0.5, abs=0.01)
    assert outcome.result["val_before"]["loss"] > 0


PROGRAM = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import test_training as t
from harness.run_schema import RunConfig
from harness.train.distributed import connected
recipe = {**t.STAGE["recipe"], "epochs": 40}
with connected(RunConfig(device="cpu")) as world:
    arguments = [t.config(recipe=recipe)], sys.argv[3], "ffcv"
    t.train(world, Path(sys.argv[2]), *arguments, checkpoint_seconds=0.05)
"""


def newest(folder):
    """Return the step of the newest checkpoint, or 0."""
    return max(checkpoint_steps(folder), default=0)


@pytest.mark.slow
def test_a_stage_killed_in_mid_epoch_sees_the_remaining_batches_and_ends_in_the_same_bits(
    world, betons, tmp_path, seen
):
    long = config(recipe={**STAGE["recipe"], "epochs": 40})
    (unbroken,) = train(world, tmp_path / "a", [long], betons, "ffcv")
    expected = seen.copy()
    here = str(Path(__file__).parent)
    command = [sys.executable, "-c", PROGRAM, here, str(tmp_path / "b"), str(betons)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        folder = tmp_path / "b" / stage_id(long)
        deadline = time.monotonic() + 300
        while True:
            assert process.poll() is None
            assert time.monotonic() < deadline
            if newest(folder) % 4:  # in the middle of an epoch, which has 4 steps
                # Stopped, the process cannot write another checkpoint before it is killed.
                process.send_signal(signal.SIGSTOP)
                os.waitid(os.P_PID, process.pid, os.WSTOPPED)
                if newest(folder) % 4:
                    break
                process.send_signal(signal.SIGCONT)
            time.sleep(0.005)
    finally:
        process.kill()
        process.wait(300)
    resumed_step = newest(folder)
    assert resumed_step % 4
    assert not (folder / "checkpoint" / "final.pt").exists()
    seen.clear()
    (resumed,) = train(world, tmp_path / "b", [long], betons, "ffcv")
    assert seen == expected[resumed_step:]
    assert facts(resumed) == facts(unbroken)


def test_a_pilot_measures_each_size_of_growing_images_as_the_run_reads_them(
    world, tree, tmp_path, monkeypatch
):
    """So the estimate is for the loader and the image sizes of the run."""
    batches = []
    train_step = Stage.train_step

    def watched(self, batch, epoch):
        batches.append((self.gang.loader.name, batch.images.shape[-1]))
        return train_step(self, batch, epoch)

    monkeypatch.setattr(Stage, "train_step", watched)
    monkeypatch.setattr(step_timing, "connected", lambda run: contextlib.nullcontext(world))
    grown = {**STAGE["dataset"], "ramp": [0.0, 0.5]}
    run = RunConfig(engine="ddp", device="cpu", loader="imagefolder", data_root=str(tree))
    measured = step_timing.measure_steps(config(dataset=grown), run, 2, tmp_path)
    assert batches == [("imagefolder", 32)] * 5 + [("imagefolder", 48)] * 5
    assert measured.seconds_per_epoch > 0
    assert 0 <= measured.data_share < 1


def test_a_pilot_measures_one_step_of_each_size_when_its_time_is_over(
    world, tree, tmp_path, monkeypatch
):
    monkeypatch.setattr(step_timing, "LONGEST_SECONDS", 0.0)
    monkeypatch.setattr(step_timing, "connected", lambda run: contextlib.nullcontext(world))
    run = RunConfig(engine="ddp", device="cpu", loader="imagefolder", data_root=str(tree))
    trained = []
    train_step = Stage.train_step
    monkeypatch.setattr(Stage, "train_step", lambda *a: trained.append(train_step(*a)))
    grown = {**STAGE["dataset"], "ramp": [0.0, 0.5]}
    measured = step_timing.measure_steps(config(dataset=grown), run, 10_000, tmp_path)
    assert len(trained) == 2 * (step_timing.WARM_UP_STEPS + 1)  # at 32 and at 48 pixels
    assert measured.seconds_per_epoch > 0


@pytest.mark.parametrize("members", [1, 2])
def test_a_gang_decodes_and_copies_each_training_batch_once(
    world, betons, tmp_path, monkeypatch, members
):
    decoded, sent = [], []
    with_decoders, send = pipeline._with_decoders, pipeline.Pipeline._send

    def watched(split, images, rows, crop):
        for batch, decode in with_decoders(split, images, rows, crop):

            def counted(piece, out, batch=batch, decode=decode):
                decoded.extend(split.ids[batch][piece].tolist())
                decode(piece, out)

            yield batch, counted

    monkeypatch.setattr(pipeline, "_with_decoders", watched)
    monkeypatch.setattr(
        pipeline.Pipeline, "_send", lambda self, batch: sent.append(batch.ids) or send(self, batch)
    )
    plain = {"policy": "none", "crop_padding": 0, "flip": False}
    stages = [config(), config(augment=plain)][:members]
    outcomes = train(world, tmp_path, stages, betons, "ffcv")
    assert all(outcome.status == "done" for outcome in outcomes)
    evaluated = members * (9 + 15)  # each stage has its own evaluation
    assert len(decoded) == 12 * 8 + evaluated
    assert sum(map(len, sent)) == 12 * 8 + evaluated


def test_multiply_adds_are_counted_for_the_sizes_of_the_training_images(world, tree, tmp_path):
    grown = config(
        dataset={**STAGE["dataset"], "ramp": [0.0, 0.5]}
    )  # two epochs at 32 pixels, one at 48
    (outcome,) = train(world, tmp_path, [grown], tree, "imagefolder")
    model = registry.build(grown.model, 3, seed=0, resolution=48)
    small, large = (count(model, side).macs_dense for side in (32, 48))
    assert outcome.result["counts"]["macs_dense"] == large > 1.5 * small
    assert outcome.result["train_macs"] == 3 * 8 * 4 * (2 * small + large)

    # The stage is now a teacher, which sees two candidates of each image.
    folder = tmp_path / stage_id(grown)
    write_json(folder / "config.json", identity(grown))
    write_json(folder / "result.json", {"status": "done", **outcome.result})
    teacher = {"name": str(folder / "checkpoint/final.pt"), "candidates": 2, "target": 1.0}
    taught = grown.model_copy(update={"teacher": TeacherConfig(**teacher)})
    train(world, tmp_path, [taught], tree, "imagefolder", steps=6)
    (taught,) = train(world, tmp_path, [taught], tree, "imagefolder")
    assert taught.result["train_macs"] == (3 + 2) * 8 * 4 * (2 * small + large)
