import multiprocessing

import pytest

from harness.errors import UserError
from harness.run_schema import RunConfig
from harness.train import step_timing


def test_a_pilot_that_hangs_is_ended_in_a_sentence(stages, monkeypatch, tmp_path):
    monkeypatch.setattr(step_timing, "DEADLINE_SECONDS", 0.1)
    with pytest.raises(UserError, match="did not end"):
        step_timing.measure_steps_in_new_process(stages.toy(), RunConfig(), 1, tmp_path)
    assert not multiprocessing.active_children()
