"""Expansion, sharing and identity: what a grid means."""

import itertools
from pathlib import Path

import pytest

from harness.cluster.state import stage_states
from harness.config import check_sections, load
from harness.errors import UserError
from harness.store.identity import canonical_json, digest, stage_id, trial_id
from harness.store.store import Store
from harness.sweep.axes import repeated
from harness.sweep.blocks import with_value
from harness.sweep.grid import make_grid
from harness.sweep.levels import levels
from harness.sweep.plan import gangs, make_plan, stages_before_sharing, todo
from harness.sweep.where import parse

FIXED = {
    "dataset": {"name": "digits", "validation_size": 200},
    "model": {"family": "cifar_resnet", "depth": 8},
    "augment": {"policy": "randaug(n=2)"},
    "recipe": {"epochs": 2, "batch_size": 32, "optimizer": {"lr": 0.1}},
    "compress": {"level_share": 0.5},
}
AXES = {"width": [0.5, 1], "magnitude": ["none", 0.5], "seed": [0, 1, 2]}


def grid(**language):
    return make_grid("test", {**FIXED, **language})


def ids(made):
    return {trial.id for trial in made.trials}


def test_axes_are_a_product():
    cells = {tuple(t.cell.values()) for t in grid(axes=AXES).trials}
    assert cells == set(itertools.product([0.5, 1.0], ["none", 0.5], [0, 1, 2]))


def test_zip_moves_axes_together():
    made = grid(axes={"seed": [0, 1]}, zip=[{"epochs": [1, 2], "lr": [0.1, 0.2]}])
    pairs = {(t.config.recipe.epochs, t.config.recipe.optimizer.lr) for t in made.trials}
    assert pairs == {(1, 0.1), (2, 0.2)}
    assert len(made.trials) == 4


def test_also_is_a_union_and_repeated_cells_count_once():
    made = grid(
        axes={"width": [0.5, 1]},
        also=[
            {"axes": {"width": [1, 2]}},
            {"set": {"compress.dense_long": 0.5}, "axes": {"width": [2]}},
        ],
    )
    cells = [(t.cell["width"], t.config.compress.dense_long) for t in made.trials]
    assert cells == [(0.5, None), (1.0, None), (2.0, None), (2.0, 0.5)]
    assert ("also[0].axes and zip: cells that are there already", -1) in made.rules


def test_exclude_removes_exactly_what_its_conditions_say_and_counts_it():
    made = grid(axes=AXES, exclude=["width < 1 and magnitude != none", "seed == 2"])
    for trial in made.trials:
        cell = trial.cell
        assert not (cell["width"] < 1 and cell["magnitude"] != "none")
        assert cell["seed"] != 2
    assert dict(made.rules) == {
        "axes and zip": 12,
        "exclude width < 1 and magnitude != none": -3,
        "exclude seed == 2": -3,
    }
    assert len(made.trials) == 6


def test_order_of_axes_and_values_and_writing_of_numbers_change_no_identity():
    turned = {name: list(reversed(values)) for name, values in reversed(AXES.items())}
    floats = {**AXES, "width": [0.50, 1.0]}
    assert ids(grid(axes=AXES)) == ids(grid(axes=turned)) == ids(grid(axes=floats))


@pytest.mark.parametrize(
    ("key", "value", "same"),
    [
        ("magnitude", 0.3, 0.1 + 0.2),
        ("magnitude", 0.0, -0.0),
        ("width", 1, 1.0000000000000002),
        ("weight_decay", 0.0, -0.0),
        ("lr", 0.3, 0.30000000000000004),
        ("sparsity", 0.3, 0.30000000000000004),
        ("compress.levels", [0.3], [0.30000000000000004]),
        ("schedule", [0.3, 0.0], [0.30000000000000004, -0.0]),
        ("recipe.optimizer.betas", [0.0, 0.3], [-0.0, 0.30000000000000004]),
        ("compress.options.a", 0.3, 0.30000000000000004),
        ("compress.options.a", 2, 2.0),
        ("compress.protect", ["first_conv", "classifier"], ["classifier", "first_conv"] * 2),
        ("surplus.widths", [1.5], [1.5000000000000002]),
        ("family", "cifar_resnet", " cifar_resnet "),
        ("compress.protect", ["classifier"], ["classifier "]),
        ("compress.options.a", "x", "x "),
        ("policy", "randaug(n=2, spread=0.3)", "randaug(n=2, spread=0.30000000000000004)"),
    ],
)
def test_equal_numbers_make_one_stage_however_they_were_computed(key, value, same):
    base = {"magnitude": [0.5], "sparsity": [0.5]}
    plans = [make_plan(grid(axes={**base, key: [written]})) for written in (value, same)]
    assert list(plans[0].stages) == list(plans[1].stages)
    if key not in ("policy", "compress.protect"):  # texts and orders of a trial stay its own
        assert ids(plans[0]) == ids(plans[1])
        with pytest.raises(UserError, match="is listed twice"):
            grid(axes={**base, key: [value, same]})


@pytest.mark.parametrize("section", ["dataset", "model", "recipe"])
def test_a_missing_section_is_one_mistake(section):
    config = {**FIXED, "axes": {"augment.flip": [True, False]}}
    del config[section]
    with pytest.raises(UserError, match=rf"1 mistake; .*\n  {section}: is missing"):
        make_grid("test", config, check_sections)


@pytest.mark.parametrize(
    ("fixed", "idle"),
    [
        ({"recipe.optimizer.name": "adamw"},
         {"recipe.optimizer.momentum": 0.5, "recipe.optimizer.nesterov": True}),
        ({}, {"recipe.optimizer.betas": [0.8, 0.9], "recipe.optimizer.decay_norm_and_bias": True}),
        ({}, {"recipe.schedule.milestones": [0.3], "recipe.schedule.gamma": 0.5}),
        ({"recipe.schedule.name": "step", "recipe.schedule.milestones": [0.5, 0.75]},
         {"recipe.schedule.milestones": [0.75, 0.5], "recipe.schedule.final_share": 0.5}),
        ({"recipe.schedule.name": "constant"}, {"recipe.schedule.final_share": 0.5}),
        ({}, {"dataset.ramp": [0.1, 0.2]}),
        ({"teacher.name": "timm:resnet50", "teacher.labels": "hard"},
         {"teacher.beyond": "down_weight"}),
        ({"teacher.name": "timm:resnet50", "teacher.cap": 2.0}, {"teacher.weight": 0.5}),
        ({"compress.dense_long": 0.75},
         {"compress.method": "random", "compress.scope": "layer",
          "compress.reestimate_batch_norm": False}),
        ({"compress.sparsity": 0.5, "compress.pruning": "gradual"},
         {"compress.reestimate_batch_norm": False}),
        ({"surplus.form": "slice", "surplus.widths": [1.5, 2.0]}, {"surplus.widths": [2.0, 1.5]}),
        ({"surplus.form": "fuse"}, {"surplus.widths": [3.0], "surplus.weak": 0.5}),
    ],
)  # fmt: skip
def test_a_key_without_effect_does_not_make_another_stage(fixed, idle):
    plans = [
        make_plan(grid(also=[{"set": keys, "axes": {"seed": [0]}}]))
        for keys in (fixed, {**fixed, **idle})
    ]
    assert list(plans[0].stages) == list(plans[1].stages)
    assert plans[0].trials != plans[1].trials


def test_levels_share_their_prefix_and_land_on_the_target():
    assert levels(0.0, 0.5) == ()
    assert levels(0.75, 0.5) == (0.5, 0.75)
    assert levels(0.8, 0.5) == (0.5, 0.75, 0.8)
    for share in (0.2, 0.5):
        long = levels(0.95, share)
        assert list(long) == sorted(set(long))
        assert long[-1] == 0.95
        for k, level in enumerate(long[:-1], start=1):
            assert level == pytest.approx(1 - (1 - share) ** k, abs=1e-6)
            assert levels(level, share) == long[:k]


def test_equal_stages_are_shared_across_sparsities_and_sweeps():
    plan = make_plan(grid(axes={"sparsity": [0.0, 0.5, 0.75, 0.8], "seed": [0, 1]}))
    assert len(plan.stages) == 2 * 4  # dense, 0.5, 0.75, 0.8 for each seed
    assert stages_before_sharing(plan) == 2 * (1 + 2 + 3 + 4)
    for path in plan.paths.values():
        assert [plan.stages[s].parent for s in path] == [None, *path[:-1]]
    other = make_plan(grid(axes={"sparsity": [0.75], "seed": [1]}))
    assert set(other.stages) < set(plan.stages)


def test_a_level_does_not_know_how_far_its_trial_goes():
    plan = make_plan(grid(axes={"sparsity": [0.75]}))
    assert "0.75" not in canonical_json(
        plan.stages[list(plan.stages)[1]].model_dump(mode="json")["prune"]
    )


def test_dense_long_spends_the_budget_of_its_sparsity_and_prunes_nothing():
    made = grid(axes={"sparsity": [0.75]}, also=[{"set": {"sparsity": 0.0, "dense_long": 0.75}}])
    plan = make_plan(made)
    sparse, control = (plan.paths[trial.id] for trial in made.trials)
    assert len(sparse) == len(control) == 3
    assert sparse[0] == control[0]
    assert [plan.stages[s].prune.sparsity for s in control[1:]] == [0.0, 0.0]
    assert sum(plan.stages[s].recipe.epochs for s in sparse) == sum(
        plan.stages[s].recipe.epochs for s in control
    )


def test_names_built_from_shared_parts_are_those_of_the_whole_config():
    plan = make_plan(grid(axes={"sparsity": [0.0, 0.75], "magnitude": ["none", 0.3]}))
    for stage, config in plan.stages.items():
        assert stage == stage_id(config) == digest(config.model_dump(mode="json"))
    for trial in plan.trials:
        assert trial.id == trial_id(trial.config) == digest(trial.config.model_dump(mode="json"))


def test_a_changed_default_renames_every_stage_an_added_trial_none():
    before = make_plan(grid(axes=AXES))
    larger = make_plan(grid(axes={**AXES, "seed": [0, 1, 2, 3]}))
    assert set(before.stages) < set(larger.stages)
    fewer = make_plan(grid(axes={**AXES, "seed": [0]}))
    assert set(fewer.stages) < set(before.stages)
    changed = make_grid(
        "test", with_value({**FIXED, "axes": AXES}, "recipe.optimizer.momentum", 0.8)
    )
    assert not set(make_plan(changed).stages) & set(before.stages)


def test_gangs_share_a_stream_and_hold_every_stage_once():
    plan = make_plan(grid(axes={**AXES, "sparsity": [0.0, 0.5]}))
    made = gangs(plan, list(plan.stages), lambda gang, stage: len(gang) < 3)
    assert sorted(s for gang in made for s in gang) == sorted(plan.stages)
    for gang in made:
        assert len(gang) <= 3
        assert len({(plan.stages[s].seed, plan.stages[s].prune is None) for s in gang}) == 1


def test_what_is_left_needs_the_weights_of_finished_parents():
    plan = make_plan(grid(axes={"sparsity": [0.5]}))
    dense, level = plan.stages
    states = {dense: "done", level: "waiting"}
    assert todo(plan, states, lambda stage: True) == [level]
    assert todo(plan, states, lambda stage: False) == [dense, level]
    assert todo(plan, {dense: "done", level: "done"}, lambda stage: False) == []


@pytest.mark.slow
def test_a_hundred_thousand_trials_expand_share_and_reconcile(tmp_path):
    large = {
        "width": [i / 10 for i in range(1, 21)],
        "sparsity": [0.0, 0.5, 0.75, 0.875, 0.9],
        "magnitude": ["none", *(i / 20 for i in range(1, 20))],
        "seed": list(range(50)),
    }
    plan = make_plan(grid(axes=large))
    assert len(plan.trials) == 100_000
    assert len(plan.stages) == 100_000
    states = stage_states(Store(Path(tmp_path)), plan.stages)
    remaining = todo(plan, {s: state.name for s, state in states.items()}, lambda stage: False)
    assert len(remaining) == 100_000


@pytest.mark.parametrize(
    ("text", "values", "holds"),
    [
        ("width < 1 and state == 'failed'", {"width": 0.5, "state": "failed"}, True),
        ("width < 1 and state == 'failed'", {"width": 2, "state": "failed"}, False),
        ("magnitude == none", {"magnitude": "none"}, True),
        ("magnitude > 0.2", {"magnitude": "none"}, False),
        ("not magnitude > 0.2", {"magnitude": "none"}, True),
        ("0.2 < magnitude <= 0.5", {"magnitude": 0.5}, True),
        ("width in [0.5, 1]", {"width": 1.0}, True),
        ("state not in ['done', 'failed']", {"state": "running"}, True),
        ("dense_long == none", {}, True),
        ("width == -1 or width == 2", {"width": 2}, True),
        ("width > +0.25", {"width": 0.5}, True),
        ("width > -0.25 and not width == +0.5", {"width": 0.5}, False),
        ("compress.levels == [0.6]", {"compress.levels": (0.6,)}, True),
        ("compress.levels == [0.6, 0.3]", {"compress.levels": (0.3, 0.6)}, False),
        ("compress.levels != [0.6]", {"compress.levels": (0.6,)}, False),
        ("compress.levels in [[0.5], [0.6]]", {"compress.levels": (0.6,)}, True),
        ("0.6 in compress.levels", {"compress.levels": (0.6,)}, True),
        ("0.5 not in compress.levels", {"compress.levels": (0.6,)}, True),
        ("0.5 in compress.levels", {"compress.levels": None}, False),
        ("compress.protect == ['classifier']", {"compress.protect": ("classifier",)}, True),
        ("width == 1 or recipe.sync_bn", {"recipe.sync_bn": True}, True),
        ("magnitude == 0.30000000000000004", {"magnitude": 0.3}, True),
        ("magnitude in [0.30000000000000004]", {"magnitude": 0.3}, True),
        ("magnitude <= 0.3", {"magnitude": 0.30000000000000004}, True),
    ],
)
def test_conditions(text, values, holds):
    names = {"width", "state", "magnitude", "dense_long", "compress.levels", "compress.protect",
             "recipe.sync_bn"}  # fmt: skip
    assert parse(text, names).holds(values) is holds


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("state == 'faild'", "'faild', which it never is (did you mean 'failed'?)"),
        ("'faild' == state", "did you mean 'failed'"),
        ("state in ['done', 'faild']", "did you mean 'failed'"),
        ("not state != 'faild'", "did you mean 'failed'"),
        ("compress.scope == 'globl'", "did you mean 'global'"),
        ("magnitude != 'nonee'", "which it never is (did you mean 'none'?)"),
        ("width == 0,5", "'(width == 0, 5)' in the place of a comparison"),
        ("state == 'done' or 'failed'", "\"'failed'\" in the place of a comparison"),
        ("width < 1 and 2", "'2' in the place of a comparison"),
        ("not [width]", "'[width]' in the place of a comparison"),
        ("state in 'failed'", "which is not a list: write ['failed']"),
        ("width not in (0.5)", "which is not a list: write [0.5]"),
        ("recipe.optimizer.name == 'adam'", "did you mean 'adamw'"),
        ("compress.method == lamp", "write text in quotes: 'lamp'"),
        ("state in [done]", "write text in quotes: 'done'"),
        ("width == widht", "write text in quotes: 'widht', or is it 'width'"),
        ("widht == 1", "unknown name 'widht' (did you mean 'width'?)"),
        ("width > -none", "contains '-none'"),
        ("width > +'a'", "contains \"+'a'\""),
        ("width = 1", "cannot be read"),
    ],
)
def test_a_wrong_condition_names_what_was_meant(text, message):
    names = {"width", "state", "compress.scope", "compress.method", "recipe.optimizer.name",
             "magnitude"}  # fmt: skip
    with pytest.raises(UserError) as caught:
        parse(text, names)
    assert message in str(caught.value)


def test_a_condition_on_a_list_excludes_the_cells_that_have_it():
    axes = {"compress.levels": [[0.6], [0.3]], "sparsity": [0.75]}
    made = grid(axes=axes, exclude=["compress.levels == [0.6]"])
    assert [trial.cell["compress.levels"] for trial in made.trials] == [(0.3,)]


def test_a_condition_that_holds_for_no_cell_is_refused_unless_axes_were_changed(tmp_path):
    with pytest.raises(UserError, match=r"exclude\[1\]: 'width > 4' holds for no cell"):
        grid(axes=AXES, exclude=["width > 0.5", "width > 4"])
    # cells that an earlier condition removes count for a later one, too
    assert grid(axes=AXES, exclude=["width > 0.5", "width > 0.5 and seed == 1"]).trials
    path = tmp_path / "mine.yaml"
    path.write_text("model: {depth: 8}\naxes: {width: [1, 2]}\nexclude: ['width > 1']\n")
    assert len(load([f"grid={path}", "axes.width=[1]"]).grid.trials) == 1


@pytest.mark.parametrize(
    "text",
    ["__import__('os')", "width.__class__", "(lambda: 1)()", "width if 1 else 2", "[x for x in y]",
     "width + 1 == 2", "width ==", "", "(" * 500 + "1" + ")" * 500, "width == 1;2", "f'{width}'"],
)  # fmt: skip
def test_conditions_cannot_run_code(text):
    with pytest.raises(UserError):
        parse(text, {"width"})


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 1, 0, 0.0], [2, 3]),
        ([1, True, "1", True], [3]),
        ([[1, [2]], [1, [2.0]], [True, [2]]], [1]),
        ([{"a": [1]}, {"a": [1]}, {"b": [1]}], [1]),
        ([None, "none", None], [2]),
        ([(0.5, "x"), (0.5, "y"), (0.5, "x")], [2]),
    ],
)
def test_repeated_values_are_equal_ones_and_true_is_not_1(values, expected):
    assert repeated(values) == expected
