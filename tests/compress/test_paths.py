"""From trials to stages: schedules of magnitude, ways of pruning, forms of surplus."""

import itertools
import re

import pytest

from harness import config
from harness.errors import UserError
from harness.schema import TrialConfig
from harness.sweep.check import misfits
from harness.sweep.grid import make_grid
from harness.sweep.plan import make_plan, stages_before_sharing

FIXED = {
    "dataset": {"name": "digits", "validation_size": 200},
    "model": {"family": "cifar_resnet", "depth": 8},
    "augment": {"policy": "randaug(n=2)", "magnitude": 0.4},
    "recipe": {"epochs": 4, "batch_size": 32, "optimizer": {"lr": 0.1}},
    "compress": {"level_share": 0.5, "level_epochs": 3, "sparsity": 0.875},
}
ROWS = """state,family,depth,width,dataset,sparsity,schedule,magnitude,val_top1
done,cifar_resnet,8,1.0,digits,0.5,constant,0.6,0.90
done,cifar_resnet,8,1.0,digits,0.5,constant,0.6,0.91
done,cifar_resnet,8,1.0,digits,0.5,constant,0.3,0.89
diverged,cifar_resnet,8,1.0,digits,0.5,constant,0.9,
done,cifar_resnet,8,1.0,digits,0.5,constant,0.9,0.99
done,cifar_resnet,8,1.0,digits,0.5,falling,0.3,0.99
done,cifar_resnet,8,1.0,digits,0.75,constant,0.2,0.80
done,cifar_resnet,8,0.5,digits,0.75,constant,0.9,0.95
done,cifar_resnet,8,1.0,digits,0.875,constant,none,0.70
"""
"""A table in which 0.6, 0.2 and none are the best magnitudes of three sparsities at width 1."""
DIFFERING = {
    "compress.method": ("magnitude", "random"),
    "compress.pruning": ("gradual", "iterative"),
    "epochs": ("10", "20"),
    "train_size": ("100", "200"),
    "lr": ("0.1", "0.2"),
    "label_smoothing": ("0.0", "0.1"),
    "teacher.labels": ("soft", "true"),
}
"""Columns in which the rows of one size must not differ, each with two values."""


def mixed_table(column, one, other):
    """Return a table whose rows differ in `column`, as if two experiments were put together."""
    lines = [f"0.5,{m},0,{value},0.9" for m in (0.1, 0.2) for value in (one, other)]
    return "\n".join([f"sparsity,magnitude,seed,{column},val_top1", *lines])


def plan(**language):
    grid = {**FIXED, **language}
    return make_plan(make_grid("test", grid, config.check_sections, misfits))


def magnitudes_on_path(plan_, trial=0):
    """Return the magnitude of each stage of a trial; for a policy without one, the policy."""
    values = []
    for stage in plan_.paths[plan_.trials[trial].id]:
        policy = plan_.stages[stage].augment.policy
        match = re.search(r"m=([\d.]+)", policy)
        values.append(float(match[1]) if match else policy)
    return values


def magnitudes(schedule, **axes):
    """Return the magnitude of each stage of the trial with this schedule."""
    return magnitudes_on_path(plan(axes={"schedule": [schedule], **axes}))


def test_schedules_set_the_magnitudes_of_the_levels():
    assert magnitudes("constant") == [0.4, 0.4, 0.4, 0.4]
    assert magnitudes("falling") == [0.4, 0.6, 0.4, 0.2]
    assert magnitudes("rising") == [0.4, 0.2, 0.4, 0.6]
    assert magnitudes([0.7, "none", 0.1]) == [0.4, 0.7, "none", 0.1]
    assert magnitudes("falling", **{"compress.dense_magnitude": [0.9]}) == [0.9, 0.6, 0.4, 0.2]
    assert magnitudes("falling", sparsity=[0.5]) == [0.4, 0.4]
    dense = {"compress.dense_magnitude": [0.9], "sparsity": [0.0]}
    assert magnitudes("constant", **dense) == [0.4]  # without levels, dense_magnitude is not used


def test_shuffled_has_the_values_of_falling_in_an_order_drawn_from_the_seed():
    """The order is neither falling nor rising."""
    orders = set()
    for seed in range(12):
        dense, *levels = magnitudes("shuffled", seed=[seed], sparsity=[0.9375])
        assert dense == 0.4
        assert sorted(levels) == sorted(magnitudes("falling", sparsity=[0.9375])[1:])
        assert levels not in (sorted(levels), sorted(levels, reverse=True))
        orders.add(tuple(levels))
    assert len(orders) > 4


@pytest.mark.parametrize("sparsity", [0.75, 0.875, 0.9375])
def test_all_schedules_have_the_same_mean_and_the_same_budget(sparsity):
    schedules = ["constant", "falling", "rising", "shuffled"]
    made = plan(axes={"schedule": schedules, "sparsity": [sparsity]})
    for number in range(4):
        levels = magnitudes_on_path(made, number)[1:]
        assert sum(levels) / len(levels) == pytest.approx(0.4)
    epochs = {sum(made.stages[s].recipe.epochs for s in path) for path in made.paths.values()}
    assert len(epochs) == 1


def test_dense_stages_and_equal_prefixes_are_trained_once():
    lists = [[0.6, 0.4, 0.2], [0.6, 0.4, 0.5], [0.6, 0.1, 0.2]]
    schedules = ["constant", "falling", "rising"]
    made = plan(axes={"schedule": [*schedules, *lists], "seed": [0, 1]})
    # For each seed: one dense stage; 3 levels each of constant, rising and falling, which is the
    # same as the first list; 1 more level of the second list, and 2 more of the third.
    assert len(made.stages) == 2 * (1 + 3 + 3 + 3 + 1 + 2)
    assert stages_before_sharing(made) == 2 * 6 * 4
    paths = [made.paths[trial.id] for trial in made.trials if trial.config.seed == 0]
    assert len({path[0] for path in paths}) == 1
    assert paths[1] == paths[3]
    assert paths[3][:3] == paths[4][:3]


def test_matched_takes_the_best_magnitude_on_validation_of_each_level_from_the_table(tmp_path):
    table = tmp_path / "rows.csv"
    table.write_text(ROWS)
    assert magnitudes(f"matched:{table}") == [0.4, 0.6, 0.2, "none"]
    table.write_text("sparsity,magnitude\n0.5,0.1\n0.75,0.2\n0.875,0.3\n")
    assert magnitudes(f"matched:{table}") == [0.4, 0.1, 0.2, 0.3]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (ROWS.replace("0.875", "0.9"), r"lacks sparsity 0\.875 of cifar_resnet depth 8, width 1 "),
        ("sparsity,magnitude\n0.5,0.1\n0.5,0.2\n", "several magnitudes for one size"),
        ("sparsity,magnitude\n0.5,7\n", "magnitude '7'"),
        ("width,val_top1\n1,0.1\n", "no column `sparsity`"),
        *(
            (
                ROWS.replace("0.89", wrong),
                rf"`val_top1` '{wrong}' at sparsity 0\.5 and magnitude 0\.3",
            )
            for wrong in ("n/a", "90%", "inf", "-inf", "89")
        ),
        (
            ROWS.replace(
                "done,cifar_resnet,8,1.0,digits,0.5,constant,0.3",
                "waiting,cifar_resnet,8,1.0,digits,0.5,constant,0.3",
            ),
            r"sparsity 0\.5 at magnitude 0\.3 that is waiting",
        ),
        *(
            (
                mixed_table(column, *values),
                rf"differ in `{column}` \('{values[0]}', '{values[1]}'\)",
            )
            for column, values in DIFFERING.items()
        ),
        (
            "sparsity,magnitude,seed,val_top1\n0.5,0.1,3,0.9\n0.5,0.1,3,0.8\n",
            "and seed 3: take one",
        ),
        (None, "there is no table"),
    ],
)
def test_a_table_without_one_best_magnitude_for_each_level_is_refused(tmp_path, text, message):
    table = tmp_path / "rows.csv"
    if text is not None:
        table.write_text(text)
    with pytest.raises(UserError, match=message):
        magnitudes(f"matched:{table}")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schedule": "faling"}, r"'faling' is not a schedule \(did you mean 'falling'"),
        ({"schedule": [0.5, 0.4]}, "has 2 magnitudes, and the trial passes through 3 levels"),
        ({"schedule": [0.5, 1.4, 0]}, r"outside \[0, 1\]"),
        ({"schedule": "falling", "magnitude": 0.8}, r"would reach 1\.2.*0\.25 at most"),
        ({"schedule": "falling", "magnitude": "none"}, "leave such trials out"),
        ({"compress.levels": [0.5, 0.4]}, "what is left must fall"),
        ({"compress.levels": [0.0, 0.4]}, "what is left must fall"),
        ({"compress.levels": []}, "lists no level"),
        ({"compress.levels": [0.5], "compress.pruning": "one_shot"}, "does not pass through"),
        ({"compress.level_share": 1e-9}, "more than 200 levels"),
        ({"compress.protect": ["clasifier"]}, r"\(did you mean 'classifier'\?"),
        ({"compress.protect": ["fc.bias"]}, "not the name of a weight, such as"),
        ({"schedule": "matched:~nobody/rows.csv"}, "there is no table"),
        ({"compress.method": "nm"}, r"takes sparsities 0\.25, 0\.5 and 0\.75, not 0\.875"),
        ({"compress.method": "channel"}, "set layer"),
        ({"compress.method": "channel", "compress.scope": "layer", "family": "cifar_shufflenetv2",
          "depth": None}, "does not suit the family cifar_shufflenetv2"),
        ({"compress.pruning": "gradual", "schedule": "rising"}, "no levels for a magnitude"),
        (
            {"compress.pruning": "gradual", "compress.method": "channel"},
            "gradual works with method .*magnitude",
        ),
        ({"compress.pruning": "gradual", "compress.rewind": "weights"}, "retrains nothing"),
        ({"compress.rewind": "fine_tuning"}, "fine_tune_lr: is missing"),
        ({"compress.rewind": "weights", "compress.rewind_epoch": 4}, "not before the end"),
        ({"compress.rewind": "weights", "compress.rewind_epoch": 4, "sparsity": 0.0},
         "not before the end"),
        ({"surplus": "slice"}, "surrounds a dense model"),
        ({"surplus": "prune_away", "sparsity": 0.0}, "is a path of levels"),
        ({"surplus": "prune_away", "schedule": "falling"}, "decides itself which stages"),
        ({"surplus": "weak_finish", "compress.level_epochs": 1}, "halves the last level"),
        ({"surplus": "slice", "sparsity": 0.0, "surplus.widths": [0.5]}, "must be different"),
        ({"surplus": "slice", "sparsity": 0.0, "surplus.widths": [2.0, 2.0]}, "must be different"),
        ({"surplus": "slice", "sparsity": 0.0, "surplus.widths": [2.0, 99.0]}, "more than 64"),
        ({"surplus": "fuse", "sparsity": 0.0, "surplus.expand": 65}, "less than or equal to 64"),
        ({"surplus": "fuse", "sparsity": 0.0, "family": "cifar_vit", "depth": 4},
         "does not suit the family cifar_vit"),
        ({"surplus": "sliced"}, r"\(did you mean 'slice'\?"),
    ],
)  # fmt: skip
def test_settings_that_do_not_fit_together_are_refused_when_the_grid_is_planned(change, message):
    with pytest.raises(UserError, match=message):
        plan(axes={name: [value] for name, value in change.items()})


def test_the_settings_of_an_excluded_cell_are_not_checked():
    made = plan(
        axes={"schedule": ["constant", "falling"], "magnitude": ["none", 0.4]},
        exclude=["magnitude == none and schedule != 'constant'"],
    )
    assert len(made.trials) == 3


def stages_of_trial(**changes):
    """Return the stages of the only trial of a grid with these settings."""
    made = plan(axes={name: [value] for name, value in changes.items()})
    (trial,) = made.trials
    return [made.stages[stage] for stage in made.paths[trial.id]]


def test_pruning_levels_and_rewind_decide_the_stages_of_a_trial():
    _, *levels = stages_of_trial(**{"compress.pruning": "one_shot"})
    assert [stage.prune.sparsity for stage in levels] == [0.875]
    _, *levels = stages_of_trial(**{"compress.levels": [0.3, 0.6, 0.95]})
    assert [stage.prune.sparsity for stage in levels] == [0.3, 0.6, 0.875]
    (only,) = stages_of_trial(**{"compress.pruning": "gradual"})
    assert (only.parent, only.prune.sparsity, only.prune.gradual_end) == (None, 0.875, 0.75)
    fine_tuning = {"compress.rewind": "fine_tuning", "compress.fine_tune_lr": 0.01}
    dense, *levels = stages_of_trial(**fine_tuning)
    assert dense.recipe.optimizer.lr == 0.1
    assert {(s.recipe.optimizer.lr, s.recipe.schedule.name) for s in levels} == {(0.01, "constant")}
    rewound = stages_of_trial(**{"compress.rewind": "weights", "compress.rewind_epoch": 1})
    assert [stage.rewind_epoch for stage in rewound] == [1, 1, 1, 1]


def test_trials_share_the_dense_stage_for_any_method_and_any_rewinding_to_epoch_0():
    made = plan(
        axes={
            "compress.method": ["magnitude", "random"],
            "compress.rewind": ["learning_rate", "weights"],
        }
    )
    assert len({path[0] for path in made.paths.values()}) == 1


def test_a_dense_trial_shares_its_stage_with_trials_that_rewind_to_its_weights():
    made = plan(
        axes={"sparsity": [0.0, 0.5], "compress.rewind": ["weights"], "compress.rewind_epoch": [2]}
    )
    assert len(made.stages) == 2
    assert len({path[0] for path in made.paths.values()}) == 1


def test_surplus_arms_share_what_is_equal_and_spend_one_budget():
    one_shot = {"compress.pruning": "one_shot", "compress.level_epochs": 4}
    arms = ["prune_away", "weak_finish"]
    made = plan(
        compress={**FIXED["compress"], "pruning": "one_shot", "level_epochs": 4},
        axes={"surplus": arms, "magnitude": ["none", 0.5]},
        also=[
            {
                "set": {**one_shot, "compress.dense_magnitude": "none"},
                "axes": {"surplus": ["none"], "magnitude": ["none", 0.5]},
            }
        ],
    )
    found = {
        (trial.config.surplus.form, trial.config.augment.magnitude): magnitudes_on_path(
            made, number
        )
        for number, trial in enumerate(made.trials)
    }
    assert found == {
        ("prune_away", "none"): ["none", "none"],
        ("prune_away", 0.5): [0.5, "none"],
        ("weak_finish", "none"): ["none", "none", "none"],
        ("weak_finish", 0.5): ["none", 0.5, "none"],
        ("none", "none"): ["none", "none"],
        ("none", 0.5): ["none", 0.5],
    }
    for path in made.paths.values():
        assert sum(made.stages[stage].recipe.epochs for stage in path) == 8
        assert made.stages[path[-1]].prune.sparsity in (0.875, 0.0)
    assert len({path[0] for path in made.paths.values()}) == 2


def test_naming_the_defaults_of_surplus_and_schedule_does_not_change_the_stages():
    config_ = TrialConfig.model_validate(FIXED)
    assert misfits(config_) == []
    plain = plan(axes={"seed": [0]})
    named = plan(axes={"seed": [0], "surplus": ["none"], "schedule": ["constant"]})
    assert list(itertools.chain(plain.stages)) == list(named.stages)
