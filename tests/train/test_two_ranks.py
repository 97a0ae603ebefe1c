import json
import re
import signal

import numpy as np
import pytest
import torch

from harness.augment.batch_transform import BatchTransform, train_batch
from harness.augment.policy import parse_policy
from harness.data.datasets import load
from harness.data.loader import make_loader
from harness.errors import UserError
from harness.models import registry
from harness.run_schema import RunConfig
from harness.sweep.targets import find_target
from harness.train import checkpoint
from harness.train.evaluate import evaluate
from harness.train.gang import load_data
from harness.train.targets import evaluate_on, load_judged

pytestmark = pytest.mark.slow
ENGINES = ["ddp 0", "deepspeed 0", "deepspeed 1"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, module_ranks):
    """Where `two_ranks.py` left what its two processes saw."""
    path = tmp_path_factory.mktemp("two")
    extensions = path / "extensions"  # where DeepSpeed would compile an operator
    processes = module_ranks.start("two_ranks.py", path, TORCH_EXTENSIONS_DIR=str(extensions))
    printed = module_ranks.ended(480)
    assert all("rank 1 dies" in text for text in printed), "\n".join(printed)
    codes = [process.returncode for process in processes]
    (path / "ended.json").write_text(json.dumps([codes, printed]))
    return path


@pytest.fixture
def records(folder):
    """What rank 0 and rank 1 wrote."""
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(2)]


def test_deepspeed_compiles_nothing_and_prints_only_our_lines(folder):
    assert not (folder / "extensions").exists()
    _, printed = json.loads((folder / "ended.json").read_text())
    for text in printed:
        before, _, _ = text.partition("rank 1 dies")
        lines = [line for line in before.splitlines() if "[Gloo]" not in line]
        assert all(re.match(r"\w{16} \(width .*\)( epoch \d+ of \d+)?: ", line) for line in lines)


def test_votes_reach_every_rank(records):
    for rank in records:
        assert rank["any"] == [True, False]
        assert rank["gather"] == [0, 1]
        assert rank["broadcast"] == "from 0"


def test_two_processes_see_the_images_of_one(folder, stages):
    config = stages.toy()
    dataset = load(config.dataset)
    loader = make_loader(dataset, RunConfig(), 32, 0, 1, torch.device("cpu"))
    transform = BatchTransform(
        crop_padding=1, flip=True, mean=dataset.info.mean, std=dataset.info.std
    )
    parts = [np.load(folder / f"images{rank}.npz") for rank in range(2)]
    ids, shown = (np.concatenate([part[key] for part in parts], 1) for key in ("ids", "shown"))
    step = 0
    for epoch in range(2):
        for batch in loader.epoch(config.seed, epoch):
            alone, _ = train_batch(
                batch.images, batch.labels, batch.ids, policy=parse_policy(config.augment.policy),
                transform=transform, seed=config.seed, epoch=epoch, num_classes=10,
            )  # fmt: skip
            assert np.array_equal(batch.ids, ids[step])
            assert np.array_equal(alone.numpy(), shown[step])
            step += 1
    assert step == len(ids)


@pytest.mark.parametrize("precision", ["fp32", "bf16_autocast", "cut"])
@pytest.mark.parametrize("engine", ENGINES)
def test_no_pruned_weight_comes_back_and_ranks_agree(records, engine, precision):
    runs = [rank[f"{engine} {precision}"] for rank in records]
    assert [run["revived"] for run in (*runs, *(rank["adamw"] for rank in records))] == [0] * 4
    assert runs[0]["weights"] == runs[1]["weights"]
    assert runs[0]["losses"] != runs[1]["losses"]  # each has its own part of the batch


@pytest.mark.parametrize("zero", [0, 1])
def test_deepspeed_and_ddp_lose_alike_on_two_ranks(records, zero):
    for rank in records:
        assert len(rank["ddp 0 long"]["losses"]) == 50
        for kind in ("fp32", "cut", "long"):
            deepspeed, twin = (rank[f"{name} {kind}"] for name in (f"deepspeed {zero}", "ddp 0"))
            assert deepspeed["losses"] == pytest.approx(twin["losses"], rel=1e-5)
        deepspeed, twin = (rank[f"{name} gradient"] for name in (f"deepspeed {zero}", "ddp 0"))
        # under autocast: no gradient is rounded to bf16 on its way between ranks
        assert deepspeed == pytest.approx(twin, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("stage", ["dense 0", "sparse 0", "dense 1", "sparse 1"])
def test_stopped_and_resumed_two_ranks_end_in_the_same_bits(records, stage):
    assert [rank[f"{stage} repeats"] for rank in records] == [True, True]
    assert records[0][stage] == records[1][stage]


@pytest.mark.parametrize("engine", ["ddp 0", "deepspeed 1"])
def test_a_trunk_that_two_ranks_cut_ends_in_the_bits_of_one_go(records, engine):
    assert [rank[f"{engine} trunk repeats"] for rank in records] == [True, True]
    assert records[0][f"{engine} trunk begins"] == 1


@pytest.mark.parametrize("engine", ENGINES)
def test_two_ranks_prune_alike_and_stop_where_they_do_not(records, engine):
    first, second = (rank[f"{engine} pruned"] for rank in records)
    assert first == second
    variants = {"gradual", "nm", "random", "channel", "slice", "fuse", "rewound", "fine_tuning"}
    assert variants < first.keys()
    assert first["rewound"]["weights_sha256"] != first["fine_tuning"]["weights_sha256"]
    assert len({first[name]["mask_hash"] for name in ("gradual", "nm", "random")}) == 3
    assert "ranks pruned a cifar_resnet differently" in first["error"]


def test_two_ranks_count_every_example_once_and_score_as_one_does(folder, records, world, stages):
    config = stages.toy()
    gang = load_data(config, RunConfig(), world, lambda: None)
    module = registry.build(config.model, 10, seed=0)
    trained = folder / "unbroken-0" / records[0]["id"]
    module.load_state_dict(checkpoint.read_final(trained, records[0]["id"])["model"])
    transform = BatchTransform(mean=gang.dataset.info.mean, std=gang.dataset.info.std)
    alone = evaluate(module, gang, "test", config.recipe, transform)
    assert records[0]["dense 0"]["test"]["loss"] == pytest.approx(alone.loss, rel=1e-6)
    assert records[0]["dense 0 correct"] == records[1]["dense 0 correct"] == alone.correct.tolist()


def test_two_ranks_evaluate_corrupted_images_as_one_does(folder, records, world, stages):
    assert records[0]["corrupted"] == records[1]["corrupted"]
    config = stages.toy()
    gang = load_data(config, RunConfig(), world, lambda: None)
    trained = folder / "unbroken-0" / records[0]["id"]
    sha256 = records[0]["dense 0"]["weights_sha256"]
    network = load_judged(trained, records[0]["id"], config, sha256, gang)
    (alone,) = evaluate_on(find_target("corruptions"), [network], gang)
    bits = {name: values.tolist() for name, values in alone.bits.items()}
    assert {**alone.record, "seconds": None, "bits": bits} == records[0]["corrupted"]


def test_one_rank_told_to_stop_stops_both_at_one_step(records):
    assert [rank["stopped"][0] for rank in records] == ["stopped", "stopped"]
    assert records[0]["stopped"][1] == ["step-00000005.pt"]


def test_a_claim_that_rank_0_loses_frees_the_other_rank(records):
    assert [rank["lost"] for rank in records] == ["raised", "stopped"]


def test_a_whole_checkpoint_of_two_ranks_goes_on_with_one(folder, world, stages):
    stages.root = folder / "stages"
    (outcome,) = stages.train(stages.toy())
    assert outcome.status == "done"
    assert outcome.result["steps"] == 12


def test_a_sharded_checkpoint_of_two_ranks_is_refused_by_one(folder, records, stages):
    stages.root = folder / "stages"
    config = stages.toy({"seed": 3})
    assert records[0]["sharded"] == ["step-00000003.pt", "step-00000003.rank1.pt"]
    with pytest.raises(UserError, match=r"by 2 process.* run\.processes as they were"):
        stages.train(config, engine="deepspeed", zero_stage=1)
    assert stages.saved(config) == records[0]["sharded"]


def test_the_end_of_a_rank_ends_the_other(folder):
    (first, second), _ = json.loads((folder / "ended.json").read_text())
    assert second == -signal.SIGKILL
    assert first > 0
