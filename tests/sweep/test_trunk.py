"""How a plan cuts dense stages of several lengths into trunk stages and cool-downs."""

import pytest

from harness.config.checks import check_trial
from harness.errors import UserError
from harness.states import StageState
from harness.sweep import cost
from harness.sweep.grid import make_grid
from harness.sweep.plan import (
    dense_stage,
    gangs,
    lineage,
    make_plan,
    stages_before_sharing,
    todo,
    trees,
    without_trunk,
)  # fmt: skip

BASE = {
    "dataset": {"name": "digits", "validation_size": 200},
    "model": {"family": "cifar_resnet", "depth": 8},
    "recipe": {
        "epochs": 10, "batch_size": 32, "optimizer": {"lr": 0.1},
        "schedule": {"name": "trunk", "warmup_epochs": 1},
    },
    "augment": {"policy": "randaug(n=2)"},
}  # fmt: skip
LENGTHS = {"epochs": [10, 20, 40, 80]}


def plan_of(axes, **more):
    config = {**BASE, **more, "axes": axes}
    return make_plan(make_grid("test", config, check_trial=check_trial))


def changed(**changes):
    """The recipe with changes of its schedule or of itself."""
    recipe = dict(BASE["recipe"])
    schedule = {**recipe["schedule"], **changes.pop("schedule", {})}
    return {"recipe": {**recipe, "schedule": schedule, **changes}}


def lengths(plan, path):
    """(schedule, first epoch, last epoch) of each stage of a path."""
    configs = [plan.stages[stage] for stage in path]
    return [(c.recipe.schedule.name, c.begin_epoch, c.recipe.epochs) for c in configs]


def test_lengths_share_a_trunk_and_each_has_a_cool_down():
    plan = plan_of(LENGTHS)
    *_, longest = plan.paths.values()
    assert lengths(plan, longest) == [
        ("constant", 0, 8), ("constant", 8, 16), ("constant", 16, 32), ("constant", 32, 64),
        ("trunk", 64, 80),
    ]  # fmt: skip
    assert len(plan.stages) == 8
    assert sum(config.own_epochs for config in plan.stages.values()) == 94
    assert all(config.parent is None for config in plan.stages.values())
    order = list(plan.stages)
    for stage, config in plan.stages.items():
        if config.origin:
            assert order.index(config.origin) < order.index(stage)
    assert len(trees(plan, plan.stages)) == 1


def test_a_stage_has_one_id_whichever_lengths_a_grid_has():
    """A grid of one length serves one of many, and one of many serves a longer one."""
    plan, (path,) = plan_of(LENGTHS), plan_of({"epochs": [80]}).paths.values()
    alone = plan_of({"epochs": [80]}).stages
    assert set(path) < set(plan.stages)
    assert [alone[stage].begin_epoch for stage in path] == [0, 64]
    longer = plan_of({"epochs": [10, 15, 40, 160]})
    assert lengths(longer, list(longer.paths.values())[-1])[:2] == [
        ("constant", 0, 8), ("constant", 8, 12),
    ]  # fmt: skip
    assert len(set(longer.stages) & set(plan.stages)) == 4  # 8, 10, 32 and 40 epochs


def test_a_constant_rate_training_is_the_trunk_of_its_length():
    plan = plan_of({"recipe.schedule.name": ["constant", "trunk"], **LENGTHS})
    constant = {t.config.recipe.epochs: plan.paths[t.id] for t in plan.trials
                if t.config.recipe.schedule.name == "constant"}  # fmt: skip
    (only,) = plan_of({"epochs": [16]}, **changed(schedule={"name": "constant"})).stages
    (sixteen,) = [s for s, c in plan.stages.items() if c.recipe.epochs == 16]
    assert only == sixteen
    assert [len(path) for path in constant.values()] == [1] * 4
    assert plan.stages[constant[10][0]].continues is None  # no cool-down begins there


def test_other_seeds_sizes_and_warm_ups_have_trunks_of_their_own():
    axes = {"width": [1, 2], "recipe.schedule.warmup_epochs": [0.5, 1], "seed": [0, 1]}
    plan = plan_of({**axes, "epochs": [10, 20]})
    assert len(trees(plan, plan.stages)) == 8
    mixed = plan_of({"recipe.schedule.cooldown": [0.2, 0.5], "epochs": [10, 20]})
    (tree,) = trees(mixed, mixed.stages)  # cool-downs of any length branch off one trunk
    begins = sorted(c.recipe.epochs for c in mixed.stages.values() if c.continues is None)
    assert begins == [5]
    assert sum(mixed.stages[s].own_epochs for s in tree) == 16 + 2 + 4 + 5 + 10


def test_levels_start_from_the_cooled_down_end():
    compress = {"level_share": 0.5, "level_epochs": 5}
    plan = plan_of({"epochs": [10, 20], "sparsity": [0.0, 0.75]}, compress=compress)
    for trial in plan.trials:
        path = plan.paths[trial.id]
        dense, *levels = without_trunk(plan, path)
        assert lengths(plan, [dense])[0][::2] == ("trunk", trial.config.recipe.epochs)
        assert [plan.stages[level].parent for level in levels] == [dense, *levels][:-1]
        assert all(dense_stage(plan, level) == dense for level in levels)
        assert [plan.stages[level].begin_epoch for level in levels] == [0] * len(levels)
        *_, first = lineage(plan.stages, path[-1])
        assert plan.stages[first].recipe.epochs == 8
    assert stages_before_sharing(plan) == 2 * (1 + 3)


@pytest.mark.parametrize(
    "more",
    [
        {"surplus": {"form": "slice"}},
        {"compress": {"sparsity": 0.5, "pruning": "gradual"}},
        {"dataset": {"name": "imagenet", "validation_size": 200, "start_resolution": 128}},
    ],
    ids=["surplus", "gradual", "growing images"],
)
def test_what_depends_on_the_whole_length_is_trained_in_one_go(more):
    plan = plan_of({"epochs": [10, 17]}, **more)
    assert [c.recipe.schedule.name for c in plan.stages.values()] == ["trunk"] * 2
    assert {c.origin for c in plan.stages.values()} == {None}


def test_early_weights_are_kept_by_the_piece_that_passes_their_epoch():
    compress = {"sparsity": 0.5, "pruning": "one_shot", "rewind": "weights", "rewind_epoch": 9}
    plan = plan_of({"epochs": [10, 20]}, compress=compress)
    kept = {(c.recipe.schedule.name, c.recipe.epochs): c.rewind_epoch
            for c in plan.stages.values() if c.parent is None}  # fmt: skip
    assert kept == {("constant", 8): None, ("trunk", 10): 9, ("constant", 16): 9, ("trunk", 20): 9}


def test_gangs_begin_and_end_together():
    plan = plan_of({**LENGTHS, "magnitude": ["none", 0.5], "seed": [0, 1]})
    made = gangs(plan, list(plan.stages), lambda gang, stage: True)
    assert {len(gang) for gang in made} == {2}
    for gang in made:
        spans = {(plan.stages[s].begin_epoch, plan.stages[s].recipe.epochs) for s in gang}
        assert len(spans) == 1


def states(plan, done):
    return {stage: "done" if stage in done else "waiting" for stage in plan.stages}


def test_a_trunk_stage_without_its_optimizer_is_trained_again():
    plan = plan_of({"epochs": [10, 20]})
    first, second = (next(s for s, c in plan.stages.items() if c.recipe.epochs == e)
                     for e in (8, 16))  # fmt: skip
    ends = [s for s, c in plan.stages.items() if c.recipe.schedule.name == "trunk"]
    lacking = set()

    def has_start(config):
        return config.origin not in lacking

    assert todo(plan, states(plan, {first, second}), has_start) == ends
    lacking |= {second}
    assert set(todo(plan, states(plan, {first, second}), has_start)) == {second, *ends}
    lacking |= {first}
    assert set(todo(plan, states(plan, {first, second}), has_start)) == {first, second, *ends}
    assert todo(plan, states(plan, set(plan.stages)), has_start) == []


def test_a_trunk_stage_is_left_out_where_all_that_continues_it_is_finished():
    """A grid of 80 epochs was trained from the start; nothing of it needs its cuts at 8 and 16."""
    plan = plan_of(LENGTHS)
    *_, longest = plan.paths.values()
    done = set(longest[-2:])
    assert todo(plan, states(plan, done), lambda config: True, set(longest)) == []
    everything = todo(plan, states(plan, done), lambda config: True)
    assert sorted(plan.stages[s].recipe.epochs for s in everything) == [8, 10, 16, 20, 32, 40]


def test_a_constant_rate_trial_is_trained_though_nothing_is_left_to_continue_it():
    zipped = {"recipe.schedule.name": ["constant", "trunk"], "epochs": [8, 10]}
    plan = plan_of({"seed": [0]}, zip=[zipped])
    path, _ = plan.paths.values()
    assert todo(plan, states(plan, set()), lambda config: True, set(path)) == list(path)
    others = set(plan.stages) - set(path)
    assert todo(plan, states(plan, others), lambda config: True) == list(path)


def test_a_path_has_the_pieces_that_other_trials_have_cut_it_into():
    """Trials that rewind have trunks of their own; the pieces before that epoch are the same."""
    compress = {"level_share": 0.5, "level_epochs": 5, "rewind_epoch": 33, "sparsity": 0.5}
    rewinds = ["learning_rate", "weights", "weights"]
    zipped = {"compress.rewind": rewinds, "epochs": [40, 35, 40]}
    plan = plan_of({"seed": [0]}, compress=compress, zip=[zipped])
    for path in plan.paths.values():
        pieces = [s for s in path if plan.stages[s].parent is None]
        assert pieces[::-1] == list(lineage(plan.stages, pieces[-1]))


def test_the_saving_is_in_the_dry_run():
    plan = plan_of({**LENGTHS, "width": [1, 2], "seed": [0, 1]})
    (line,) = cost.describe_trunks(plan)
    assert "4 trunk(s) of several lengths: 376 epochs instead of 600" in line
    assert "(94 instead of 150 each)" in line
    waiting = dict.fromkeys(plan.stages, StageState("waiting"))
    assert cost.describe_sharing(plan, waiting) == "sharing saves 224 epochs of training"
    assert cost.describe_trunks(plan_of({"epochs": [10]})) == []


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"epochs": 7}, "recipe.epochs: a cool-down of 0.2 of 7 epochs takes 1.4, and it has to "
         "begin where an epoch ends: give 5 or 10 epochs, or recipe.schedule.cooldown=0.142857"),
        ({"epochs": 1, "schedule": {"warmup_epochs": 0}}, "ends: give 5 epochs"),
        ({"epochs": 12, "schedule": {"cooldown": 0.3}}, "give 10 or 20 epochs, or "
         "recipe.schedule.cooldown=0.333333"),
        ({"epochs": 2, "schedule": {"cooldown": 0.0004, "warmup_epochs": 0}}, "takes 0.0008, and "
         "it has to begin where an epoch ends: give recipe.schedule.cooldown=0.5"),
        ({"epochs": 4, "schedule": {"cooldown": 0.9999, "warmup_epochs": 0}}, "takes 3.9996, and "
         "it has to begin where an epoch ends: give recipe.schedule.cooldown=0.75"),
        ({"epochs": 5, "schedule": {"warmup_epochs": 4.5}}, "4.5 epochs are more than a stage of 5 "
         "epochs has before its cool-down of 1: make the warm-up shorter"),
    ],
)  # fmt: skip
def test_a_cool_down_within_an_epoch_and_a_long_warm_up_are_refused(changes, sentence):
    with pytest.raises(UserError) as caught:
        plan_of({"seed": [0]}, **changed(**changes))
    assert sentence in str(caught.value)


def test_what_a_refusal_offers_is_accepted():
    for cooldown, epochs in ((0.142857, 7), (0.333333, 12), (0.2, 5), (0.3, 20)):
        plan = plan_of({"seed": [0]}, **changed(epochs=epochs, schedule={"cooldown": cooldown}))
        assert len(plan.stages) == 2
