import os
import platform
import re

import pytest
import torch

from harness.errors import UserError
from harness.run_schema import RunConfig
from harness.train.distributed import (
    VARIABLES,
    _use_deterministic_algorithms,
    connected,
    pick_device,
)


@pytest.fixture
def environment(monkeypatch):
    """Set the variables of a launcher, and none but these."""

    def put(**variables):
        for name in VARIABLES:
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return put


def refused(run):
    with pytest.raises(UserError) as error, connected(run):
        pass
    return str(error.value)


def test_an_environment_that_does_not_fit_is_refused_by_name(environment):
    environment()
    assert "MASTER_PORT not set" in refused(RunConfig(processes=2))
    environment(RANK="0", WORLD_SIZE="2", LOCAL_RANK="0", MASTER_ADDR="127.0.0.1")
    assert "MASTER_PORT not set" in refused(RunConfig(processes=2))
    environment(RANK="0", WORLD_SIZE="2", LOCAL_RANK="0", MASTER_ADDR="127.0.0.1", MASTER_PORT="1")
    assert "WORLD_SIZE is 2" in refused(RunConfig(processes=4))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU to be had")
def test_a_gpu_that_is_not_there_is_refused_with_the_node_and_the_remedy():
    node = re.escape(platform.node())
    with pytest.raises(UserError, match=rf"on the node {node} sees no .*run\.device=cpu"):
        pick_device(RunConfig(device="cuda"), 0)
    assert pick_device(RunConfig(device="auto"), 0) == torch.device("cpu")


def test_one_process_needs_no_variables_and_repeats_its_bits(world):
    assert (world.rank, world.size, world.device.type) == (0, 1, "cpu")
    assert torch.get_num_threads() == 1
    assert torch.are_deterministic_algorithms_enabled()
    assert world.any(True, False) == (True, False)
    assert (world.broadcast("x"), world.gather("x")) == ("x", ["x"])


def test_on_a_gpu_bits_repeat_and_an_operator_without_such_an_algorithm_warns(monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    before = torch.get_deterministic_debug_mode()
    try:
        _use_deterministic_algorithms(torch.device("cuda"))
        assert torch.is_deterministic_algorithms_warn_only_enabled()
        assert torch.are_deterministic_algorithms_enabled()
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    finally:
        torch.set_deterministic_debug_mode(before)
