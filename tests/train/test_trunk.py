"""A training that is cut into a trunk and a cool-down ends in the bits of one go."""

import pytest

from harness.errors import UserError
from harness.files import Damaged
from harness.store.identity import stage_id
from harness.store.store import gpu_seconds

ADAMW = {"name": "adamw", "lr": 0.002, "weight_decay": 0.05}
SGD = {"lr": 0.1, "weight_decay": 5e-4, "nesterov": True}


@pytest.fixture
def cut(others):
    """Where stages of a trunk are trained one after the other."""
    others.keeps_last = True
    return others


def same(stages, cut, whole, end, outcome, again):
    """Compare what one go and the last stage of a trunk ended with, as `Stages.record` has it."""
    status, result, correct, losses, final = stages.record(whole, outcome)
    status_of_cut, of_cut, correct_of_cut, losses_of_cut, final_of_cut = cut.record(end, again)
    assert status == status_of_cut == "done"
    assert {**result, "continued": None} == {**of_cut, "continued": None}
    assert correct == correct_of_cut
    assert losses[-len(losses_of_cut) :] == losses_of_cut
    assert final == final_of_cut


@pytest.mark.slow
@pytest.mark.parametrize(
    ("optimizer", "run"),
    [
        (SGD, {"engine": "ddp"}),
        (ADAMW, {"engine": "ddp"}),
        (SGD, {"engine": "deepspeed"}),
        (ADAMW, {"engine": "deepspeed", "zero_stage": 1}),
        (SGD, {"engine": "deepspeed", "zero_stage": 1}),
    ],
)
def test_pieces_end_in_the_bits_of_one_go(stages, cut, optimizer, run):
    *trunk, end = stages.trunk(1, 2, **{"recipe.epochs": 4, "recipe.optimizer": optimizer})
    whole = end.model_copy(update={"continues": None})
    (outcome,) = stages.train(whole, **run)
    for config in trunk:
        cut.train(config, **run)
    cut.train_for(5, end, **run)  # killed in the middle, and resumed
    assert cut.saved(end) == ["step-00000017.pt"]
    (again,) = cut.train(end, **run)
    same(stages, cut, whole, end, outcome, again)
    assert again.result["steps"] == 24
    assert again.result["epochs"] == 4
    continued = again.result["continued"]
    assert (continued["stage"], continued["epoch"]) == (stage_id(trunk[-1]), 2)
    own = again.result["timing"]["gpu_seconds"]
    assert gpu_seconds(again.result) == own + continued["gpu_seconds"] > own > 0.0


@pytest.mark.slow
def test_gangs_of_pieces_end_in_the_bits_of_one_go(stages, cut):
    policies = ["none", "randaug(n=2, m=0.3)", "randaug(n=2, m=0.8)"]
    paths = [
        stages.trunk(1, 2, **{"recipe.epochs": 4, "augment.policy": policy}) for policy in policies
    ]
    for gang in zip(*paths, strict=True):
        cut.train_for(3, *gang)
        outcomes = cut.train(*gang)
    for (*_, end), again in zip(paths, outcomes, strict=True):
        whole = end.model_copy(update={"continues": None})
        same(stages, cut, whole, end, stages.train(whole)[0], again)


def test_an_id_does_not_depend_on_how_the_training_is_cut(stages):
    first, second, end = stages.trunk(1, 2, **{"recipe.epochs": 4})
    constant = {"name": "constant", "warmup_epochs": 0.0}
    assert stage_id(second) == stage_id(
        stages.toy({"recipe.epochs": 2, "recipe.schedule": constant})
    )
    assert stage_id(end) == stage_id(stages.trunk(**{"recipe.epochs": 4})[0])
    assert second.continues.stage == stage_id(first)


def test_a_training_in_one_go_resumes_where_a_later_plan_cuts_it(stages, cut):
    first, second, _ = stages.trunk(1, 2, **{"recipe.epochs": 4})
    whole = second.model_copy(update={"continues": None})
    (outcome,) = stages.train(whole)
    cut.train_for(8, whole)  # beyond the cut at 6 steps
    cut.train(first)
    (again,) = cut.train(second)
    assert again.result["continued"] is None
    same(stages, cut, whole, second, outcome, again)


def test_a_checkpoint_before_the_cut_is_not_resumed(stages, cut):
    """The piece that ends at the cut is farther than this training was when it was killed."""
    first, second, _ = stages.trunk(1, 2, **{"recipe.epochs": 4})
    whole = second.model_copy(update={"continues": None})
    (outcome,) = stages.train(whole)
    cut.train_for(3, whole)
    cut.train(first)
    (again,) = cut.train(second)
    assert again.result["continued"]["epoch"] == 1
    same(stages, cut, whole, second, outcome, again)


def test_early_weights_to_rewind_to_pass_through_the_pieces(stages, cut):
    changes = {"recipe.epochs": 4, "rewind_epoch": 1}
    first, second, end = stages.trunk(1, 2, **changes)
    whole = end.model_copy(update={"continues": None})
    (outcome,) = stages.train(whole)
    for config in (first, second):
        cut.train(config)
    same(stages, cut, whole, end, outcome, cut.train(end)[0])


@pytest.mark.parametrize("file", ["checkpoint/step-00000006.pt", "result.json"])
@pytest.mark.parametrize("is_missing", [True, False])
def test_a_damaged_start_names_the_stage_that_has_it(cut, file, is_missing):
    first, second, _ = cut.trunk(1, 2, **{"recipe.epochs": 4})
    cut.train(first)
    path = cut.folder(first) / file
    path.unlink() if is_missing else path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(Damaged, match=str(cut.folder(first))):
        cut.train(second)


def test_a_start_in_other_parts_is_refused(cut):
    first, second, _ = cut.trunk(1, 2, **{"recipe.epochs": 4})
    cut.train(first, engine="deepspeed", zero_stage=1)
    with pytest.raises(UserError, match=r"under ZeRO 1 by 1 process.* as they were"):
        cut.train(second, engine="ddp")
