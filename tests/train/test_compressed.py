"""Stages that prune in other ways than by magnitude and level, and stages with surplus."""

import json

import pytest
import torch

from harness.augment.batch_transform import BatchTransform
from harness.compress import masks as pruning
from harness.compress.channels import fit_shapes
from harness.errors import UserError
from harness.models import registry
from harness.models.counts import count
from harness.run_schema import RunConfig
from harness.store.identity import stage_id
from harness.train import checkpoint
from harness.train.evaluate import evaluate
from harness.train.gang import load_data
from harness.train.stage import Stage

ENGINES = [("ddp", 0), ("deepspeed", 0), ("deepspeed", 1)]
WIDE = {"model.width": 0.5}
SLICE = {"surplus": {"form": "slice", "widths": [1.5, 2.0], "share": 0.5}}
FUSE = {"surplus": {"form": "fuse", "expand": 2}}


def pruned(stages, parent, **prune):
    """A stage that prunes `parent` in a way of its own; `rewind_epoch` is the stage's."""
    changes = {"rewind_epoch": prune.pop("rewind_epoch", None), **WIDE}
    child = stages.child(parent, changes=changes).model_dump(mode="json")
    child["prune"].update(prune)
    return type(parent).model_validate(child)


def gradual(stages, **changes):
    prune = {"sparsity": 0.8, "method": "magnitude", "scope": "global", "protect": ["classifier"]}
    prune |= {"rewind": "learning_rate", "reestimate_batch_norm": True, "gradual_end": 0.75}
    return stages.toy({"prune": {**prune, **changes}, **WIDE})


def final(stages, config):
    return checkpoint.read_final(stages.folder(config), stage_id(config))


def loaded(stages, config):
    """The model that a finished stage leaves, and its masks."""
    saved = final(stages, config)
    model = registry.build(config.model, 10, seed=config.seed, resolution=8)
    fit_shapes(model, saved["model"])
    model.load_state_dict(saved["model"])
    return model, None if saved["masks"] is None else pruning.unpack(saved["masks"], model)


def stopped_and_resumed(stages, others, config, expected, **run):
    for steps in (1, 4, 4):
        (outcome,) = stages.train_for(steps, config, **run)
        assert outcome.status == "stopped"
    (outcome,) = stages.train(config, **run)
    assert stages.record(config, outcome) == expected


@pytest.mark.slow
@pytest.mark.parametrize(("engine", "zero"), ENGINES)
def test_gradual_pruning_ends_at_its_target_and_resumes_to_the_same_bits(
    stages, others, engine, zero
):
    run = {"engine": engine, "zero_stage": zero}
    config = gradual(others)
    (outcome,) = others.train(config, **run)
    result = outcome.result
    model, masks = loaded(others, config)
    total = sum(mask.numel() for mask in masks.values())
    assert sum(int((~mask).sum()) for mask in masks.values()) == round(0.8 * total)
    assert all((model.get_parameter(n)[~mask] == 0).all() for n, mask in masks.items())
    assert result["unpruned"] == ["fc.weight"]
    dense, sparse = result["counts"]["macs_dense"], result["counts"]["macs_nonzero"]
    assert 3 * sparse < result["train_macs"] / result["examples"] < 3 * dense
    stopped_and_resumed(stages, others, config, others.record(config, outcome), **run)


@pytest.mark.slow
@pytest.mark.parametrize(("engine", "zero"), ENGINES[:2])
def test_channels_are_gone_from_the_deployed_model_and_from_what_is_trained(
    stages, others, engine, zero
):
    run = {"engine": engine, "zero_stage": zero}
    dense = others.toy(WIDE)
    first = pruned(others, dense, method="channel", scope="layer", sparsity=0.25)
    second = pruned(others, first, method="channel", scope="layer", sparsity=0.5)
    outcomes = [others.train(config, **run)[0] for config in (dense, first, second)]
    model, masks = loaded(others, second)
    small = registry.build(others.toy().model, 10, seed=0)  # of half the width
    assert masks is None
    assert count(model, 8) == count(small, 8)
    result = outcomes[2].result
    assert result["counts"]["params_total"] == sum(p.numel() for p in small.parameters())
    assert result["train_macs"] == 3 * count(small, 8).macs_dense * result["examples"]
    assert result["sparsity"] == 0.5
    assert result["val_before"]["top1"] != result["val"]["top1"]
    stages.root = others.root  # the parents are there
    expected = others.record(second, outcomes[2])
    for path in others.folder(second).rglob("*.*"):
        path.unlink()
    stopped_and_resumed(stages, others, second, expected, **run)


def test_classes_are_never_pruned_away_nor_the_last_weight(stages):
    dense = stages.toy({**WIDE, "recipe.epochs": 1})
    stages.train(dense)
    config = pruned(stages, dense, method="channel", scope="layer", protect=["first_conv"])
    (outcome,) = stages.train(config)
    assert outcome.status == "done"
    # with the first convolution all that shares its channels, the residual stream of its block
    coupled = ["conv1.weight", "blocks.0.conv2.weight"]
    assert outcome.result["unpruned"] == [*coupled, "fc.weight"]
    model, _ = loaded(stages, config)
    small = registry.build(stages.toy().model, 10, seed=0)
    for name, weight in model.named_parameters():
        if name.endswith("conv1.weight") or name in coupled:
            narrow = small.get_parameter(name).shape[0]
            assert weight.shape[0] == (2 * narrow if name in coupled else narrow)
    for changes in ({"sparsity": 0.9999999}, {"sparsity": 0.9999999, "method": "random"}):
        with pytest.raises(UserError, match=r"leaves none of the [\d,]+ prunable weights"):
            stages.train(pruned(stages, dense, **changes))


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["ddp", "deepspeed"])
def test_two_of_four_and_random_hold_while_they_train(stages, engine):
    dense = stages.toy(WIDE)
    stages.train(dense, engine=engine)
    for method, scope in (("nm", "global"), ("random", "layer")):
        config = pruned(stages, dense, method=method, scope=scope)
        (outcome,) = stages.train(config, engine=engine)
        model, masks = loaded(stages, config)
        assert outcome.result["sparsity"] == pytest.approx(0.5, abs=1e-3)
        weight = model.get_parameter("blocks.1.conv2.weight")
        assert ("conv1.weight" in outcome.result["unpruned"]) == (method == "nm")
        assert (
            model.get_parameter("blocks.1.conv2.weight")[~masks["blocks.1.conv2.weight"]] == 0
        ).all()
        if method == "nm":
            groups = weight.detach().movedim(1, -1).reshape(-1, 4)
            assert ((groups == 0).sum(1) == 2).all()


@pytest.mark.slow
def test_weights_are_rewound_to_the_start_or_to_an_early_epoch(stages, monkeypatch):
    starts = []
    begin = Stage._begin

    def spy(self, member):
        begin(self, member)
        parameters = self.network.module.named_parameters()
        starts.append({n: p.detach().clone() for n, p in parameters})

    monkeypatch.setattr(Stage, "_begin", spy)
    for epoch in (None, 1):
        dense = stages.toy({"rewind_epoch": epoch, **WIDE})
        stages.train(dense)
        level = pruned(stages, dense, rewind="weights", rewind_epoch=epoch)
        deeper = pruned(stages, level, rewind="weights", rewind_epoch=epoch, sparsity=0.75)
        early = starts[-1] if epoch is None else final(stages, dense)["rewind"]
        trained = final(stages, dense)["model"]
        for config in (level, deeper):
            stages.train(config)
            _, masks = loaded(stages, config)
            for name, mask in masks.items():
                assert torch.equal(starts[-1][name], torch.where(mask, early[name], 0.0))
                assert not torch.equal(starts[-1][name], torch.where(mask, trained[name], 0.0))
        if epoch is None:
            assert rates(stages, level) == rates(stages, dense)
    # the learning rates are those that followed the epoch, where the level has the epochs left
    short = pruned(stages, dense, rewind="weights", rewind_epoch=1, sparsity=0.6)
    short = type(short).model_validate(
        {**short.model_dump(mode="json"), "recipe": {**short.recipe.model_dump(), "epochs": 1}}
    )
    stages.train(short)
    assert rates(stages, short) == rates(stages, dense)[1:]
    assert len(set(rates(stages, dense))) == 2


def rates(stages, config):
    """The learning rate at the end of each epoch."""
    lines = (stages.folder(config) / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["lr"] for line in lines]


@pytest.mark.slow
@pytest.mark.parametrize(("engine", "zero"), ENGINES)
@pytest.mark.parametrize("surplus", [SLICE, FUSE], ids=["slice", "fuse"])
def test_surplus_is_trained_and_gone_and_resumes_to_the_same_bits(
    stages, others, surplus, engine, zero
):
    run = {"engine": engine, "zero_stage": zero}
    config, plain = others.toy(surplus), others.toy()
    (outcome,), (twin,) = others.train(config, **run), others.train(plain, **run)
    result = outcome.result
    assert result["counts"] == twin.result["counts"]
    assert result["params_training"] > 2 * result["counts"]["params_total"]
    assert twin.result["params_training"] == twin.result["counts"]["params_total"]
    assert result["train_macs"] > 1.5 * twin.result["train_macs"]
    saved, reference = final(others, config)["model"], final(others, plain)["model"]
    assert {n: t.shape for n, t in saved.items()} == {n: t.shape for n, t in reference.items()}
    stopped_and_resumed(stages, others, config, others.record(config, outcome), **run)


def test_a_surplus_stage_is_scored_as_what_it_deploys(stages):
    config = stages.toy({**FUSE, "recipe.epochs": 4})
    (outcome,) = stages.train(config)
    plain = stages.toy({"recipe.epochs": 1})
    model, _ = loaded(stages, config)
    gang = load_data(config, RunConfig(), stages.world, lambda: None)
    transform = BatchTransform(mean=gang.dataset.info.mean, std=gang.dataset.info.std)
    scores = evaluate(model, gang, "test", plain.recipe, transform)
    assert outcome.result["test"]["loss"] == pytest.approx(scores.loss, rel=1e-5)
