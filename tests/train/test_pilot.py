import multiprocessing

import pytest

from harness.errors import UserError
from harness.schema import RunConfig
from harness.train import step_timing as pilot


def test_a_pilot_that_hangs_is_ended_in_a_sentence(stages, monkeypatch, tmp_path):
    monkeypatch.setattr(pilot, "DEADLINE_SECONDS", 0.1)
    with pytest.raises(UserError, match="did not end"):
        pilot.measure_alone(stages.toy(), RunConfig(), 1, tmp_path)
    assert not multiprocessing.active_children()
