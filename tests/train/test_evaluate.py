"""The scores of a result: each against its definition, from the logits of the same network."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from harness.files import atomic_write
from harness.run_schema import RunConfig
from harness.statistics import calibration_error
from harness.store.correct import bits_of, counts_of, packed, read
from harness.sweep.targets import find_target
from harness.train import evaluate as evaluation
from harness.train import train_gang


@pytest.fixture
def trained(stages, monkeypatch):
    """(outcome, {split: (logits, labels)}) of a toy stage, as its evaluation saw them."""
    seen = []
    judge = evaluation._judge

    def spy(logits, labels, has_top5):
        seen.append((logits, labels))
        return judge(logits, labels, has_top5)

    monkeypatch.setattr(evaluation, "_judge", spy)
    (outcome,) = stages.train(stages.toy())
    (validation, test) = seen  # one forward pass for each split
    return outcome, {"val": validation, "test": test}


def test_each_score_is_that_of_the_logits(trained):
    outcome, seen = trained
    for side, split in (("val", "validation"), ("test", "test")):
        logits, labels = seen[side]
        scores = outcome.result[side]
        assert "top5" not in scores  # the digits have 10 classes
        confidence = logits.softmax(1).amax(1).double().numpy()
        correct = (logits.argmax(1) == labels).numpy()
        assert scores["calibration_error"] == calibration_error(confidence, correct)
        per_class = [correct[labels == label].mean() for label in range(10)]
        assert scores["worst_class"] == min(per_class)
        assert scores["class_spread"] == pytest.approx(np.std(per_class))
        assert outcome.classes[split].images.sum() == len(labels)
    json.dumps(outcome.result, allow_nan=False)


def test_top5_counts_the_five_highest_logits_where_there_are_20_classes():
    logits = torch.arange(20.0).repeat(3, 1)
    labels = torch.tensor([15, 14, 19])
    _, correct, in_top5, _, _ = evaluation._judge(logits, labels, has_top5=True)
    assert in_top5.tolist() == [True, False, True]
    assert correct.tolist() == [False, False, True]


def test_a_set_with_20_classes_gets_top5(stages, monkeypatch):
    monkeypatch.setattr(evaluation, "TOP5_CLASSES", 10)
    (outcome,) = stages.train(stages.toy())
    for side in ("val", "test"):
        assert outcome.result[side]["top1"] < outcome.result[side]["top5"] <= 1.0


def test_bits_and_class_counts_come_back_from_their_file(trained, tmp_path):
    import hashlib

    outcome, _ = trained
    content = packed(outcome.correct, outcome.classes)
    atomic_write(tmp_path / "correct.npz", content)
    arrays = read(tmp_path / "correct.npz", hashlib.sha256(content).hexdigest())
    for split in ("validation", "test"):
        assert bits_of(arrays, split).tolist() == outcome.correct[split].tolist()
        counts = counts_of(arrays, split)
        assert counts.correct.tolist() == outcome.classes[split].correct.tolist()
        assert counts.images.tolist() == outcome.classes[split].images.tolist()
    old = packed(outcome.correct)  # as older versions wrote it
    atomic_write(tmp_path / "correct.npz", old)
    assert (
        counts_of(read(tmp_path / "correct.npz", hashlib.sha256(old).hexdigest()), "test") is None
    )


def train_with_targets(stages, config, stop=lambda: False):
    member = replace(stages.member(config), targets=("corruptions",))
    (outcome,) = train_gang([member], RunConfig(engine="ddp"), stages.world, stop, lambda: None)
    return outcome


def test_a_stage_with_a_target_has_the_same_result_and_an_evaluation(stages, others):
    config = stages.toy()
    outcome = train_with_targets(stages, config)
    (plain,) = others.train(config)
    assert stages.record(config, outcome) == others.record(config, plain)
    target = find_target("corruptions")
    assert outcome.evaluations.keys() == {target.id}
    record = outcome.evaluations[target.id].record
    assert record["images"] == (100 + 60) * target.copies
    assert record["test"]["top1"] < outcome.result["test"]["top1"]


def test_a_stop_leaves_the_evaluation_out_and_keeps_the_result(stages):
    calls = []

    def stop():
        calls.append(len(calls))
        return len(calls) > 12 + 20  # the steps, and some corruptions

    outcome = train_with_targets(stages, stages.toy(), stop)
    assert (outcome.status, outcome.evaluations) == ("done", {})
    assert len(calls) == 12 + 21
