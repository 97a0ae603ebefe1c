"""What a sweep costs: from finished stages, from pilots, and what a budget refuses."""

import pytest

from harness.cluster.state import StageState
from harness.errors import UserError
from harness.sweep import cost
from harness.sweep.cost import Pilot
from harness.sweep.grid import make_grid
from harness.sweep.plan import make_plan


@pytest.fixture
def plan():
    """Two widths, two seeds, two epochs each."""
    return make_plan(make_grid("test", {
        "dataset": {"name": "digits", "validation_size": 200},
        "model": {"family": "cifar_resnet", "depth": 8},
        "recipe": {"epochs": 2, "batch_size": 32, "optimizer": {"lr": 0.1}},
        "augment": {"policy": "randaug(n=2)"},
        "axes": {"width": [1, 2], "seed": [0, 1]},
    }))  # fmt: skip


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


def pilot(seconds=100.0, **more):
    return Pilot(seconds, **{"data_share": 0.5, "memory_bytes": 1 << 30,
                             "device_bytes": 10 << 30, "device": "gpu", **more})  # fmt: skip


def config_of(plan, width):
    return next(config for config in plan.stages.values() if config.model.width == width)


def left(states):
    return [stage for stage, state in states.items() if state.result is None]


def test_finished_stages_tell_more_than_pilots(plan, tmp_path):
    for width in (1, 2):
        cost.write_pilot(tmp_path, config_of(plan, width), pilot(900.0))
    states = states_of(plan, w1=360.0)
    known = cost.seconds_per_epoch(plan, states, tmp_path)
    assert known[cost.size_key(config_of(plan, 1))] == 180.0
    assert known[cost.size_key(config_of(plan, 2))] == 900.0
    said = cost.sentence(plan, states, left(states), 1, tmp_path)
    assert "about 1.10 device-hours" in said  # 2 x 180 + 2 x 2 x 900 seconds
    lines = cost.by_size(plan, states, left(states), tmp_path)
    assert "width 1 batch 32: 1 stages to go, 0.10 device-hours" in lines[0]
    assert "so far 0.10, by the pilot 0.50" in lines[0]  # actual against estimate


def test_a_budget_refuses_what_costs_more_or_is_unknown(plan, tmp_path):
    states = states_of(plan, w1=360.0)
    with pytest.raises(UserError, match="2 stages are of sizes never measured"):
        cost.check_budget(plan, states, left(states), tmp_path, 100.0)
    cost.write_pilot(tmp_path, config_of(plan, 2), pilot(900.0))
    cost.check_budget(plan, states, left(states), tmp_path, 1.11)
    with pytest.raises(UserError, match=r"about 1\.10 device-hours and budget=1"):
        cost.check_budget(plan, states, left(states), tmp_path, 1.0)


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, 8),
        ({"memory_bytes": 3 << 30}, 2),
        ({"memory_bytes": 20 << 30}, 1),
        ({"device": "cpu"}, 8),
        ({"device": "cpu", "data_share": 0.01}, 1),
    ],
)
def test_gangs_are_as_large_as_memory_and_use_allow(plan, tmp_path, more, expected):
    assert cost.gang_size(plan, list(plan.stages), tmp_path) == 1  # nothing measured
    for width in (1, 2):
        cost.write_pilot(tmp_path, config_of(plan, width), pilot(**more))
    assert cost.gang_size(plan, list(plan.stages), tmp_path) == expected


def test_a_damaged_pilot_counts_as_none(plan, tmp_path):
    cost.write_pilot(tmp_path, config_of(plan, 1), pilot())
    cost.pilot_path(tmp_path, config_of(plan, 1)).write_text('{"seconds_per_epoch": 1')
    assert not cost.pilots(tmp_path, plan)
