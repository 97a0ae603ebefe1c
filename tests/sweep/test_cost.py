"""What a sweep costs, from finished stages and from measurements; what a budget refuses."""

import pytest

from harness.cluster_schema import ClusterConfig, ResourceRule, SlurmConfig
from harness.commands.summary import describe_gangs
from harness.config import Launch
from harness.errors import UserError
from harness.run_schema import RunConfig
from harness.schema import OptimizerConfig, TeacherConfig
from harness.states import StageState
from harness.sweep import cost
from harness.sweep.cost import Measurement
from harness.sweep.grid import make_grid
from harness.sweep.plan import gangs, make_plan

BASE = {
    "dataset": {"name": "digits", "validation_size": 200},
    "model": {"family": "cifar_resnet", "depth": 8},
    "recipe": {"epochs": 2, "batch_size": 32, "optimizer": {"lr": 0.1}},
    "augment": {"policy": "randaug(n=2)"},
}


def plan_grid():
    return make_grid("test", {**BASE, "axes": {"width": [1, 2], "seed": [0, 1]}})


@pytest.fixture
def plan():
    """Two widths, two seeds, two epochs each."""
    return make_plan(plan_grid())


def states_of(plan, **seconds_of_width):
    states = {}
    for stage, config in plan.stages.items():
        spent = seconds_of_width.get(f"w{config.model.width:g}")
        result = {"timing": {"gpu_seconds": spent}, "epochs": 2}
        states[stage] = (
            StageState("done", result=result)
            if spent is not None and config.seed == 0
            else StageState("waiting")
        )
    return states


def measurement(seconds=100.0, **more):
    return Measurement(seconds, **{"data_share": 0.5, "memory_bytes": 1 << 30,
                             "device_bytes": 10 << 30, "device": "gpu", "engine": "deepspeed",
                             "loader": "auto", "data_cache": "page", **more})  # fmt: skip


def config_of(plan, width):
    return next(config for config in plan.stages.values() if config.model.width == width)


def left(states):
    return [stage for stage, state in states.items() if state.result is None]


def test_finished_stages_take_precedence_over_measurements(plan, tmp_path):
    for width in (1, 2):
        cost.write_measurement(tmp_path, config_of(plan, width), measurement(900.0))
    states = states_of(plan, w1=360.0)
    known = cost.seconds_per_epoch(plan, states, tmp_path)
    assert known[cost.size_key(config_of(plan, 1))] == 180.0
    assert known[cost.size_key(config_of(plan, 2))] == 900.0
    text = cost.describe_remaining_cost(plan, states, left(states), 1, tmp_path)
    assert "about 1.10 device-hours" in text  # 2 x 180 + 2 x 2 x 900 seconds
    lines = cost.describe_sizes(plan, states, left(states), tmp_path)
    assert "width 1 batch 32: 1 stages to go, 0.10 device-hours" in lines[0]
    assert "spent 0.10, estimated by the pilot 0.50" in lines[0]  # actual against estimate


def test_a_budget_refuses_what_costs_more_or_is_unknown(plan, tmp_path):
    states = states_of(plan, w1=360.0)
    with pytest.raises(UserError, match="2 stages are of sizes never measured"):
        cost.check_budget(plan, states, left(states), tmp_path, 100.0)
    cost.write_measurement(tmp_path, config_of(plan, 2), measurement(900.0))
    cost.check_budget(plan, states, left(states), tmp_path, 1.11)
    with pytest.raises(UserError, match=r"about 1\.10 device-hours, more than budget=1"):
        cost.check_budget(plan, states, left(states), tmp_path, 1.0)


def test_a_budget_of_rounds_counts_what_they_have_spent(plan, tmp_path):
    for width in (1, 2):
        cost.write_measurement(tmp_path, config_of(plan, width), measurement(900.0))
    states = states_of(plan, w1=360.0)
    assert cost.check_budget(plan, states, left(states), tmp_path, 1.5, spent=0.3) == ""
    reason = cost.check_budget(plan, states, left(states), tmp_path, 1.5, spent=0.5)
    assert "the next round would cost about 1.10 device-hours, with the 0.50 that were" in reason
    assert "more than budget=1.5; raise the budget to go on" in reason


def test_a_budget_counts_what_is_under_way(plan, tmp_path):
    """Two launches must not each spend the whole budget."""
    for width in (1, 2):
        cost.write_measurement(tmp_path, config_of(plan, width), measurement(900.0))
    first, *others = plan.stages
    done = dict.fromkeys(others, StageState("done", result={}))
    cost.check_budget(plan, {**done, first: StageState("waiting")}, [first], tmp_path, 1.5)
    for name in ("queued", "running", "disputed"):
        states = {**dict.fromkeys(others, StageState(name)), first: StageState("waiting")}
        for left in ([first], list(plan.stages)):  # here, workers wait for what others train
            with pytest.raises(UserError, match=r"the 4 stages .* about 2\.00 device-hours"):
                cost.check_budget(plan, states, left, tmp_path, 1.5)


@pytest.fixture
def wide_plan():
    """One stream: eight magnitudes at each of two widths."""
    return make_plan(make_grid("test", {
        **BASE, "axes": {"magnitude": [i / 10 for i in range(8)], "width": [1, 2], "seed": [0]},
    }))  # fmt: skip


def gangs_of(plan, store, cluster=None, gang="auto"):
    """The widths in each gang."""
    run, cluster = RunConfig(gang=gang), cluster or ClusterConfig(name="c")
    joins = cost.join_rule(plan, run, cluster, cost.read_measurements(store, plan))
    made = gangs(plan, list(plan.stages), joins)
    assert sorted(stage for gang in made for stage in gang) == sorted(plan.stages)
    return [[plan.stages[stage].model.width for stage in gang] for gang in made]


def auto(store, cluster=None):
    run, cluster = RunConfig(gang="auto"), cluster or ClusterConfig(name="c")
    return Launch(plan_grid(), run, cluster, store)


SLURM = {"name": "s", "executor": "slurm"}


@pytest.mark.parametrize(
    ("more", "cluster", "most"),
    [
        ({}, {}, 8),
        ({"memory_bytes": 3 << 30}, {}, 2),
        ({"memory_bytes": 20 << 30}, {}, 1),
        ({"data_share": 0.01}, {}, 1),  # on a GPU, too, a gang shares nothing but data
        ({"device": "cpu"}, {}, 8),
        ({"device": "cpu", "data_share": 0.01}, {}, 1),
        ({"device": "cpu"}, {"workers": 2}, 4),  # each has half of the host
        ({"device": "cpu"}, {**SLURM, "workers": 2}, 8),
        ({"device": "cpu"}, {**SLURM, "slurm": SlurmConfig(mem_gb=5)}, 4),
        ({}, {**SLURM, "slurm": SlurmConfig(mem_gb=5)}, 8),  # host memory is not the GPU's
    ],
)
def test_gangs_are_as_large_as_memory_and_use_allow(wide_plan, tmp_path, more, cluster, most):
    cluster = ClusterConfig(**{"name": "c", **cluster})
    assert set(map(len, gangs_of(wide_plan, tmp_path, cluster))) == {1}  # nothing measured
    for width in (1, 2):
        cost.write_measurement(tmp_path, config_of(wide_plan, width), measurement(**more))
    assert max(map(len, gangs_of(wide_plan, tmp_path, cluster))) == most


def test_a_gang_is_filled_by_the_sum_of_its_members(wide_plan, tmp_path):
    gigabytes = {1: 1, 2: 3}
    for width, size in gigabytes.items():
        cost.write_measurement(
            tmp_path, config_of(wide_plan, width), measurement(memory_bytes=size << 30)
        )
    made = gangs_of(wide_plan, tmp_path)
    sums = [sum(gigabytes[width] for width in gang) for gang in made]
    assert max(sums) == 8  # 0.8 of 10
    assert max(map(len, made)) == 4


def test_stages_without_gain_or_measurement_train_alone_and_the_rest_in_gangs(wide_plan, tmp_path):
    cost.write_measurement(tmp_path, config_of(wide_plan, 1), measurement())
    assert sorted(gangs_of(wide_plan, tmp_path)) == [[1] * 8, *[[2]] * 8]
    cost.write_measurement(tmp_path, config_of(wide_plan, 2), measurement(data_share=0.1))
    assert sorted(gangs_of(wide_plan, tmp_path)) == [[1] * 8, *[[2]] * 8]
    assert max(map(len, gangs_of(wide_plan, tmp_path, gang=3))) == 3
    lines = describe_gangs(auto(tmp_path), wide_plan, list(wide_plan.stages))
    assert "width 1 batch 32: 8, 50% of a step waits" in lines[0]
    assert "width 2 batch 32: 1, 10% of a step waits" in lines[1]


def test_a_measurement_with_other_settings_forms_no_gang(wide_plan, tmp_path):
    others = (
        {"engine": "ddp"}, {"engine": ""}, {"zero_stage": 1}, {"loader": "ffcv"},
        {"data_cache": "process"}, {"micro_batch_size": 8},
    )  # fmt: skip
    for other in others:
        for width in (1, 2):
            cost.write_measurement(tmp_path, config_of(wide_plan, width), measurement(**other))
        assert set(map(len, gangs_of(wide_plan, tmp_path))) == {1}
        assert (
            len(cost.read_measurements(tmp_path, wide_plan)) == 2
        )  # their seconds count all the same
    (line, _) = describe_gangs(auto(tmp_path), wide_plan, list(wide_plan.stages))
    assert (
        "1, its pilot ran on gpu with engine deepspeed, ZeRO stage 0, micro-batch 8, loader auto"
        in line
    )
    assert not measurement(device="cpu").matches(RunConfig(device="cuda"))
    rule = ResourceRule(
        where="width > 1", micro_batch_size=8
    )  # as the measurement of that size had
    slurm = ClusterConfig(name="s", executor="slurm", resources=(rule,))
    lines = describe_gangs(auto(tmp_path, slurm), wide_plan, list(wide_plan.stages))
    assert "its pilot ran" in lines[0]
    assert "width 2 batch 32: 8, 50% of a step waits" in lines[1]


def test_a_size_is_all_that_decides_how_long_it_takes(plan, tmp_path):
    config = config_of(plan, 1)
    recipe = config.recipe
    others = [
        config.model_copy(update={"recipe": recipe.model_copy(update={"optimizer": optimizer})})
        for optimizer in (OptimizerConfig(name="adamw", lr=0.1),)
    ]
    others.append(config.model_copy(update={"teacher": TeacherConfig(name="timm:resnet18")}))
    paths = {cost.measurement_path(tmp_path, other) for other in (config, *others)}
    assert len(paths) == 3
    faster = recipe.model_copy(update={"optimizer": OptimizerConfig(lr=0.3)})
    same = config.model_copy(update={"recipe": faster, "seed": 5})
    assert cost.measurement_path(tmp_path, same) == cost.measurement_path(tmp_path, config)


def test_a_damaged_measurement_counts_as_absent(plan, tmp_path):
    cost.write_measurement(tmp_path, config_of(plan, 1), measurement())
    cost.measurement_path(tmp_path, config_of(plan, 1)).write_text('{"seconds_per_epoch": 1')
    assert not cost.read_measurements(tmp_path, plan)


def test_a_measurement_written_by_an_older_version_is_read(plan, tmp_path):
    config = config_of(plan, 1)
    path = cost.measurement_path(tmp_path, config)
    assert path.parent.name == "pilots"
    path.parent.mkdir()
    path.write_text(
        '{"seconds_per_epoch": 2.5, "data_share": 0.1, "memory_bytes": 1, "device_bytes": 2, '
        '"device": "cpu"}'
    )
    assert cost.read_measurements(tmp_path, plan)[cost.size_key(config)].seconds_per_epoch == 2.5
