"""Erasing, mixup and cutmix through whole stages."""

import pytest

MIXED = {"augment.erasing": 0.3, "augment.mixup": 0.4, "augment.cutmix": 1.0}


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["ddp", "deepspeed"])
def test_mixed_targets_train_and_resume_to_the_same_bits(stages, others, engine):
    config = stages.toy(MIXED)
    (whole,) = stages.train(config, engine=engine, micro_batch_size=8)
    others.train_for(7, config, engine=engine, micro_batch_size=8)
    (resumed,) = others.train(config, engine=engine, micro_batch_size=8)
    assert whole.status == "done"
    assert stages.record(config, whole) == others.record(config, resumed)
    assert whole.result["train"]["loss"] > stages.train(stages.toy())[0].result["train"]["loss"]


def test_each_of_them_changes_what_is_learned(stages):
    hashes = set()
    for changes in ({}, *({key: value} for key, value in MIXED.items())):
        (outcome,) = stages.train(stages.toy({**changes, "recipe.epochs": 1}))
        hashes.add(outcome.result["weights_sha256"])
    assert len(hashes) == 4
