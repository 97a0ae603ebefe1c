"""Families beyond the CIFAR ResNet go through whole stages: trained, resumed, pruned."""

import pytest

ADAMW = {"recipe.optimizer": {"name": "adamw", "lr": 0.002, "weight_decay": 0.05}}
VIT = {"model": {"family": "cifar_vit", "depth": 2, "width": 0.25}, **ADAMW}
FEW = {"dataset.train_size": 128}  # 4 steps an epoch: depthwise convolutions are slow on a CPU
MOBILENET = {"model": {"family": "cifar_mobilenetv2", "width": 0.25}, **FEW}
SHUFFLENET = {"model": {"family": "cifar_shufflenetv2", "width": 0.25}, **FEW}
NAMED = {"model": {"family": "timm:test_efficientnet"}}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "run"),
    [
        (VIT, {"engine": "ddp"}),
        (VIT, {"engine": "deepspeed", "zero_stage": 1}),
        (MOBILENET, {"engine": "deepspeed"}),
        (SHUFFLENET, {"engine": "ddp"}),
        (NAMED, {"engine": "ddp"}),
    ],
    ids=["vit", "vit-zero1", "mobilenetv2", "shufflenetv2", "timm"],
)
def test_stopped_and_resumed_it_ends_in_the_same_bits(stages, others, changes, run):
    dense = stages.toy(changes)
    sparse = stages.child(dense, 0.5, changes)
    for config in (dense, sparse):
        (unbroken,) = others.train(config, **run)
        (stopped,) = stages.train_for(3, config, **run)
        assert stopped.status == "stopped"
        (resumed,) = stages.train(config, **run)
        assert stages.record(config, resumed) == others.record(config, unbroken)
    assert resumed.result["sparsity"] == pytest.approx(0.5, abs=1e-3)
    counts = resumed.result["counts"]
    assert counts["macs_nonzero"] < counts["macs_dense"]


def test_engines_train_a_vision_transformer_alike(stages, others):
    config = stages.toy(VIT)
    (plain,) = stages.train(config, engine="ddp")
    for zero_stage in (0, 1):
        folder = type(others)(others.root / str(zero_stage), others.world)
        (other,) = folder.train(config, engine="deepspeed", zero_stage=zero_stage)
        assert other.result["train"]["loss"] == pytest.approx(
            plain.result["train"]["loss"], rel=1e-4
        )
