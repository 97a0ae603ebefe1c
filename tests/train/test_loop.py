import json
import random
import signal
import threading
import time

import pytest
from torch import nn

from harness.compress import masks as pruning
from harness.data.resident import Resident
from harness.errors import UserError
from harness.models import registry
from harness.store.claims import ClaimLost
from harness.train import checkpoint, gang, heartbeat
from harness.train.stage import Stage

STEPS = 12  # of a toy stage


def four(stages):
    """Four stages that may share a gang: other widths, policies and rates."""
    return [
        stages.toy(),
        stages.toy({"model.width": 0.5}),
        stages.toy({"augment.policy": "none", "augment.flip": False}),
        stages.toy({"recipe.optimizer.lr": 0.02, "recipe.optimizer.name": "adamw"}),
    ]


@pytest.mark.parametrize("engine", ["ddp", "deepspeed"])
def test_a_gang_of_four_ends_in_the_same_bits_as_four_alone(stages, others, engine):
    configs = four(stages)
    together = stages.train(*configs, engine=engine)
    alone = [others.train(config, engine=engine)[0] for config in configs]
    for config, one, other in zip(configs, together, alone, strict=True):
        assert one.status == "done"
        assert stages.record(config, one) == others.record(config, other)
    assert len({outcome.result["weights_sha256"] for outcome in together}) == 4


@pytest.mark.parametrize(("most", "kept"), [(60.0, True), (0.0, False)])
def test_a_claim_is_kept_while_data_are_read_but_not_for_ever(stages, monkeypatch, most, kept):
    monkeypatch.setattr(heartbeat, "BEAT_SECONDS", 0.01)
    monkeypatch.setattr(heartbeat, "LOADING_SECONDS", most)
    beats, seen = [], []
    read = gang.load

    def slow(*args):
        time.sleep(0.3)
        seen.append(len(beats))
        return read(*args)

    monkeypatch.setattr(gang, "load", slow)
    stages.train(stages.toy(), beat=lambda: beats.append(threading.get_ident()))
    assert (seen[0] > 1) == kept
    assert beats[-1] == threading.get_ident()  # afterwards by the steps themselves


def test_a_result_says_what_was_trained_and_how_well(stages):
    config = stages.toy()
    (outcome,) = stages.train(config)
    result = outcome.result
    assert (result["epochs"], result["steps"], result["examples"]) == (2, STEPS, STEPS * 32)
    assert result["train_macs"] == 3 * result["counts"]["macs_nonzero"] * STEPS * 32
    assert (result["sparsity"], result["mask_hash"], result["val_before"]) == (0.0, None, None)
    for split, name, length in (("val", "validation", 100), ("test", "test", 60)):
        assert len(outcome.correct[name]) == length
        assert result[split]["top1"] == outcome.correct[name].mean()
    written = (stages.folder(config) / "metrics.jsonl").read_text()
    losses = [json.loads(line) for line in written.splitlines()]
    assert [(line["epoch"], line["step"]) for line in losses] == [(1, 6), (2, 12)]
    assert result["train"]["loss"] == losses[-1]["train_loss"] < losses[0]["train_loss"]
    assert stages.saved(config) == ["final.pt"]
    json.dumps(result, allow_nan=False)


def test_device_seconds_hold_start_up_and_evaluation(stages, monkeypatch):
    """They are what a budget is spent on; of short stages they are most."""
    evaluate = Stage.evaluate

    def slow(self, split):
        time.sleep(0.2)
        return evaluate(self, split)

    monkeypatch.setattr(Stage, "evaluate", slow)
    (outcome,) = stages.train(stages.toy())
    timing = outcome.result["timing"]
    assert timing["gpu_seconds"] - timing["seconds"] > 0.4


def test_the_test_split_is_looked_at_once_after_the_last_step(stages, monkeypatch):
    seen = []
    epoch, evaluate = Resident.epoch, Resident.evaluate
    monkeypatch.setattr(
        Resident, "epoch", lambda *a, **k: (seen.append("train") or b for b in epoch(*a, **k))
    )
    monkeypatch.setattr(Resident, "evaluate", lambda *a: seen.append(a[1]) or evaluate(*a))
    stages.train(stages.toy())
    assert seen == ["train"] * STEPS + ["validation", "test"]


class Noisy(nn.Module):
    """A model that draws: its dropout must not depend on what was drawn before."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.drop = inner, nn.Dropout(0.2)

    def forward(self, x):
        return self.inner(self.drop(x))


@pytest.mark.parametrize(("engine", "zero"), [("ddp", 0), ("deepspeed", 0), ("deepspeed", 1)])
def test_stopped_anywhere_and_resumed_it_ends_in_the_same_bits(
    stages, others, engine, zero, monkeypatch
):
    build = registry.build
    monkeypatch.setattr(registry, "build", lambda *a, **k: Noisy(build(*a, **k)))
    monkeypatch.setattr(registry, "roles", lambda config: {"classifier": ("inner.fc",)})
    run = {"engine": engine, "zero_stage": zero}
    dense = stages.toy()
    unbroken, (parent,) = [], others.train(dense, **run)
    sparse = others.child(dense)
    unbroken = [others.record(dense, parent), others.record(sparse, *others.train(sparse, **run))]
    for config, expected in zip((dense, sparse), unbroken, strict=True):
        for steps in (1, 4, 1, 5):  # in the first epoch, at its end, right after it, in the second
            (stopped,) = stages.train_for(steps, config, **run)
            assert (stopped.status, stopped.result) == ("stopped", None)
        (done,) = stages.train(config, **run)
        assert stages.record(config, done) == expected


@pytest.mark.slow
def test_members_that_were_stopped_apart_wait_for_each_other(stages, others):
    configs = four(stages)
    expected = [others.record(c, o) for c, o in zip(configs, others.train(*configs), strict=True)]
    stages.train_for(9, configs[0])
    stages.train_for(3, configs[1])
    outcomes = stages.train(*configs)
    assert [stages.record(c, o) for c, o in zip(configs, outcomes, strict=True)] == expected


def test_after_the_last_step_only_the_evaluation_is_done_again(stages, monkeypatch):
    stopped, crashed = stages.toy(), stages.toy({"model.width": 0.5})
    assert stages.train_for(STEPS, stopped)[0].status == "stopped"
    beats = iter(range(99))

    def crash():
        if next(beats) == STEPS:
            raise OSError("the machine is gone")

    with pytest.raises(OSError, match="machine"):
        stages.train(crashed, beat=crash)
    monkeypatch.setattr(Resident, "epoch", lambda *a: pytest.fail("trained again"))
    assert [outcome.status for outcome in stages.train(stopped, crashed)] == ["done", "done"]


@pytest.mark.slow
def test_killed_at_random_and_resumed_it_ends_in_the_same_bits(stages, others, ranks):
    long = {"recipe.epochs": 20}
    configs = [stages.toy(long), stages.toy({**long, "model.width": 0.5})]
    outcomes = others.train(*configs)
    expected = [others.record(c, o) for c, o in zip(configs, outcomes, strict=True)]
    texts = [config.model_dump_json() for config in configs]
    (process,) = ranks.start("gang.py", stages.root, *texts, count=1)
    deadline = time.monotonic() + 90
    while not any(name.startswith("step") for name in stages.saved(configs[0])):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(random.uniform(0.0, 0.5))
    process.send_signal(signal.SIGKILL)
    process.wait(300)
    assert "final.pt" not in stages.saved(configs[1])
    outcomes = stages.train(*configs)
    assert [stages.record(c, o) for c, o in zip(configs, outcomes, strict=True)] == expected
    assert stages.saved(configs[0]) == ["final.pt"]


def test_what_a_crash_left_behind_is_taken_back(stages, others):
    """Lines of an epoch that is trained again, and half a file."""
    config = stages.toy()
    expected = others.record(config, *others.train(config))
    stages.train_for(4, config)
    beats = iter(range(99))

    def crash():
        if next(beats) == 5:
            raise OSError("the machine is gone")

    with pytest.raises(OSError, match="machine"):
        stages.train(config, beat=crash)
    assert len((stages.folder(config) / "metrics.jsonl").read_text().splitlines()) == 1
    (stages.folder(config) / "checkpoint" / ".step-00000010.pt.1.tmp").write_bytes(b"half")
    assert stages.record(config, *stages.train(config)) == expected
    assert stages.saved(config) == ["final.pt"]


def test_a_pruned_stage_keeps_its_masks_and_those_of_its_parent(stages):
    dense = stages.toy()
    half = stages.child(dense, 0.5)
    most = stages.toy(
        {
            "parent": stages.member(half).stage_id,
            "prune": {**half.prune.model_dump(), "sparsity": 0.8},
        }
    )
    outcomes = [stages.train(config)[0] for config in (dense, half, most)]
    results = [outcome.result for outcome in outcomes]
    total = results[1]["counts"]["params_prunable"]
    assert [round(r["sparsity"] * total) for r in results[1:]] == [
        round(0.5 * total),
        round(0.8 * total),
    ]
    assert results[2]["unpruned"] == ["fc.weight"]
    assert 0.1 < results[1]["val_before"]["top1"] <= 1.0
    model = registry.build(dense.model, 10, seed=0)
    gone = []
    for config, result in zip((half, most), results[1:], strict=True):
        final = checkpoint.read_final(stages.folder(config), stages.member(config).stage_id)
        masks = pruning.unpack(final["masks"], model)
        assert pruning.mask_hash(masks) == result["mask_hash"]
        assert checkpoint.weights_hash(final["model"]) == result["weights_sha256"]
        for name, mask in masks.items():
            assert (final["model"][name][~mask] == 0.0).all()
        gone.append(
            {(name, *place) for name, mask in masks.items() for place in (~mask).nonzero().tolist()}
        )
    assert gone[0] < gone[1]


def test_a_level_without_pruning_goes_on_from_its_parents_weights(stages):
    dense = stages.toy()
    (parent,) = stages.train(dense)
    (longer,) = stages.train(stages.child(dense, sparsity=0.0))
    assert longer.result["train"]["loss"] < parent.result["train"]["loss"]
    assert longer.result["counts"]["params_nonzero"] == parent.result["counts"]["params_total"]


@pytest.mark.slow
@pytest.mark.parametrize("zero", [0, 1])
def test_a_stage_whose_loss_is_not_finite_ends_and_the_others_continue(stages, others, zero):
    run = {"engine": "deepspeed" if zero else "ddp", "zero_stage": zero}
    good = stages.toy()
    bad = stages.toy({"recipe.optimizer.lr": 1e12, "recipe.schedule.name": "constant"})
    outcomes = stages.train(bad, good, **run)
    assert [outcome.status for outcome in outcomes] == ["diverged", "done"]
    json.dumps(outcomes[0].result, allow_nan=False)
    assert outcomes[0].result["train"]["loss"] is None
    assert stages.record(good, outcomes[1]) == others.record(good, *others.train(good, **run))
    again = others.train_for(3, bad, **run)[0], others.train(bad, **run)[0]
    assert [outcome.status for outcome in again] == ["stopped", "diverged"]
    assert others.record(bad, again[1]) == stages.record(bad, outcomes[0])


def test_a_gang_shares_data_seed_batch_size_and_epochs(stages):
    for changes in ({"seed": 1}, {"recipe.epochs": 3}, {"dataset.train_size": 160}):
        with pytest.raises(UserError, match="cannot train side by side"):
            stages.train(stages.toy(), stages.toy(changes))


@pytest.mark.parametrize("at", [3, STEPS + 1], ids=["training", "evaluating"])
def test_a_process_that_lost_its_claim_writes_nothing_more(stages, at):
    config = stages.toy()
    beats = []

    def beat():
        beats.append(0)
        if len(beats) == at:
            raise ClaimLost("taken over")

    with pytest.raises(ClaimLost, match="taken over"):
        stages.train(config, beat=beat)
    assert not any(name == "final.pt" for name in stages.saved(config))
    assert len(beats) == at
