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


MIXTURES = {
    "compress.method": ("magnitude", "random"),
    "compress.pruning": ("gradual", "iterative"),
    "epochs": ("10", "20"),
    "train_size": ("100", "200"),
    "lr": ("0.1", "0.2"),
    "label_smoothing": ("0.0", "0.1"),
    "teacher.labels": ("soft", "true"),
}


def mixed(column, one, other):
    """A table that pools two experiments."""
    lines = [f"0.5,{m},0,{value},0.9" for m in (0.1, 0.2) for value in (one, other)]
    return "\n".join([f"sparsity,magnitude,seed,{column},val_top1", *lines])


def plan(**language):
    grid = {**FIXED, **language}
    return make_plan(make_grid("test", grid, config.check_sections, misfits))


def strengths(plan_, trial=0):
    """Policies' magnitudes along the path of a trial."""
    values = []
    for stage in plan_.paths[plan_.trials[trial].id]:
        policy = plan_.stages[stage].augment.policy
        match = re.search(r"m=([\d.]+)", policy)
        values.append(float(match[1]) if match else policy)
    return values


def of(schedule, **axes):
    return strengths(plan(axes={"schedule": [schedule], **axes}))


def test_schedules_go_where_their_names_say():
    assert of("constant") == [0.4, 0.4, 0.4, 0.4]
    assert of("falling") == [0.4, 0.6, 0.4, 0.2]
    assert of("rising") == [0.4, 0.2, 0.4, 0.6]
    assert of([0.7, "none", 0.1]) == [0.4, 0.7, "none", 0.1]
    assert of("falling", **{"compress.dense_magnitude": [0.9]}) == [0.9, 0.6, 0.4, 0.2]
    assert of("falling", sparsity=[0.5]) == [0.4, 0.4]
    own = {"compress.dense_magnitude": [0.9], "sparsity": [0.0]}
    assert of("constant", **own) == [0.4]  # a dense trial is labelled by its magnitude


def test_shuffled_is_falling_in_an_order_of_the_seed_neither_falling_nor_rising():
    orders = set()
    for seed in range(12):
        dense, *levels = of("shuffled", seed=[seed], sparsity=[0.9375])
        assert dense == 0.4
        assert sorted(levels) == sorted(of("falling", sparsity=[0.9375])[1:])
        assert levels not in (sorted(levels), sorted(levels, reverse=True))
        orders.add(tuple(levels))
    assert len(orders) > 4


@pytest.mark.parametrize("sparsity", [0.75, 0.875, 0.9375])
def test_schedules_have_one_mean_and_one_budget(sparsity):
    kinds = ["constant", "falling", "rising", "shuffled"]
    made = plan(axes={"schedule": kinds, "sparsity": [sparsity]})
    for number in range(4):
        levels = strengths(made, number)[1:]
        assert sum(levels) / len(levels) == pytest.approx(0.4)
    epochs = {sum(made.stages[s].recipe.epochs for s in path) for path in made.paths.values()}
    assert len(epochs) == 1


def test_dense_stages_and_equal_prefixes_are_trained_once():
    lists = [[0.6, 0.4, 0.2], [0.6, 0.4, 0.5], [0.6, 0.1, 0.2]]
    kinds = ["constant", "falling", "rising"]
    made = plan(axes={"schedule": [*kinds, *lists], "seed": [0, 1]})
    # each seed: 1 dense; constant 3, rising 3, falling = the first list 3, + 1, + 2
    assert len(made.stages) == 2 * (1 + 3 + 3 + 3 + 1 + 2)
    assert stages_before_sharing(made) == 2 * 6 * 4
    paths = [made.paths[trial.id] for trial in made.trials if trial.config.seed == 0]
    assert len({path[0] for path in paths}) == 1
    assert paths[1] == paths[3]
    assert paths[3][:3] == paths[4][:3]


def test_matched_trains_each_level_as_the_table_found_best_on_validation(tmp_path):
    table = tmp_path / "rows.csv"
    table.write_text(ROWS)
    assert of(f"matched:{table}") == [0.4, 0.6, 0.2, "none"]
    table.write_text("sparsity,magnitude\n0.5,0.1\n0.75,0.2\n0.875,0.3\n")
    assert of(f"matched:{table}") == [0.4, 0.1, 0.2, 0.3]


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
            (mixed(column, *values), rf"differ in `{column}` \('{values[0]}', '{values[1]}'\)")
            for column, values in MIXTURES.items()
        ),
        (
            "sparsity,magnitude,seed,val_top1\n0.5,0.1,3,0.9\n0.5,0.1,3,0.8\n",
            "and seed 3: take one",
        ),
        (None, "there is no table"),
    ],
)
def test_a_table_that_does_not_serve_is_refused_before_anything_is_queued(tmp_path, text, message):
    table = tmp_path / "rows.csv"
    if text is not None:
        table.write_text(text)
    with pytest.raises(UserError, match=message):
        of(f"matched:{table}")


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
def test_what_does_not_fit_is_said_before_anything_is_queued(change, message):
    with pytest.raises(UserError, match=message):
        plan(axes={name: [value] for name, value in change.items()})


def test_an_excluded_cell_need_not_fit():
    made = plan(
        axes={"schedule": ["constant", "falling"], "magnitude": ["none", 0.4]},
        exclude=["magnitude == none and schedule != 'constant'"],
    )
    assert len(made.trials) == 3


def prunes(**changes):
    made = plan(axes={name: [value] for name, value in changes.items()})
    (trial,) = made.trials
    return [made.stages[stage] for stage in made.paths[trial.id]]


def test_the_ways_to_prune():
    assert [s.prune.sparsity for s in prunes(**{"compress.pruning": "one_shot"})[1:]] == [0.875]
    listed = prunes(**{"compress.levels": [0.3, 0.6, 0.95]})
    assert [s.prune.sparsity for s in listed[1:]] == [0.3, 0.6, 0.875]
    (only,) = prunes(**{"compress.pruning": "gradual"})
    assert (only.parent, only.prune.sparsity, only.prune.gradual_end) == (None, 0.875, 0.75)
    dense, *levels = prunes(**{"compress.rewind": "fine_tuning", "compress.fine_tune_lr": 0.01})
    assert dense.recipe.optimizer.lr == 0.1
    assert {(s.recipe.optimizer.lr, s.recipe.schedule.name) for s in levels} == {(0.01, "constant")}
    early = prunes(**{"compress.rewind": "weights", "compress.rewind_epoch": 1})
    assert [stage.rewind_epoch for stage in early] == [1, 1, 1, 1]


def test_rewinding_to_the_start_and_all_methods_share_the_dense_stage():
    made = plan(
        axes={
            "compress.method": ["magnitude", "random"],
            "compress.rewind": ["learning_rate", "weights"],
        }
    )
    assert len({path[0] for path in made.paths.values()}) == 1


def test_a_dense_trial_is_the_stage_that_rewound_ones_begin_with():
    made = plan(
        axes={"sparsity": [0.0, 0.5], "compress.rewind": ["weights"], "compress.rewind_epoch": [2]}
    )
    assert len(made.stages) == 2
    assert len({path[0] for path in made.paths.values()}) == 1


def test_surplus_arms_share_what_is_equal_and_spend_one_budget():
    set_ = {"compress.pruning": "one_shot", "compress.level_epochs": 4}
    arms = ["prune_away", "weak_finish"]
    made = plan(
        compress={**FIXED["compress"], "pruning": "one_shot", "level_epochs": 4},
        axes={"surplus": arms, "magnitude": ["none", 0.5]},
        also=[
            {
                "set": {**set_, "compress.dense_magnitude": "none"},
                "axes": {"surplus": ["none"], "magnitude": ["none", 0.5]},
            }
        ],
    )
    magnitudes = {}
    for number, trial in enumerate(made.trials):
        magnitudes[trial.config.surplus.form, trial.config.augment.magnitude] = strengths(
            made, number
        )
    assert magnitudes == {
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


def test_a_trial_without_surplus_has_the_stages_that_it_had():
    config_ = TrialConfig.model_validate(FIXED)
    assert misfits(config_) == []
    plain = plan(axes={"seed": [0]})
    named = plan(axes={"seed": [0], "surplus": ["none"], "schedule": ["constant"]})
    assert list(itertools.chain(plain.stages)) == list(named.stages)
