"""The pilot through its command, and what launch makes of it."""

import json
import re

import pytest

from harness.commands import launch, pilot, status
from harness.errors import UserError


@pytest.fixture
def run(capsys):
    """(verb, words) -> output of a command that succeeds; it measures in a process of its own."""

    def said(verb, *words):
        assert verb.main([*words]) == 0
        return capsys.readouterr().out

    return said


@pytest.mark.slow
def test_a_pilot_gives_costs_that_budgets_are_compared_with(run, make_grid, tmp_path):
    grid, store = make_grid(seeds="0, 1, 2"), tmp_path / "store"
    words = f"grid={grid}", f"store={store}"
    with pytest.raises(UserError, match="never measured"):
        run(launch, *words, "budget=5")
    said = run(pilot, *words, "steps=4")
    assert "s per epoch" in said
    (kept,) = store.glob("pilots/*.json")
    measured = json.loads(kept.read_text())
    assert measured["seconds_per_epoch"] > 0
    assert 0 <= measured["data_share"] < 1
    assert measured["memory_bytes"] > 1 << 20
    assert "measured already" in run(pilot, *words)
    assert not (store / "stages").exists()  # a pilot leaves no stage
    assert "device-hours still to be spent" in run(launch, *words, "dry_run=true")
    with pytest.raises(UserError, match="nothing was queued"):
        run(launch, *words, "budget=0")
    said = run(launch, *words, "budget=5", "run.gang=auto")
    assert (
        "gang of digits cifar_resnet-8 width 0.25 batch 32: 1, " in said
    )  # there is nothing to decode
    assert "by the pilot" in run(status, *words)
    # memory is not known from finished stages, nor from a pilot with another micro-batch
    assert "waiting for data" in run(pilot, *words, "steps=1", "run.micro_batch_size=16")
    assert json.loads(kept.read_text())["micro_batch_size"] == 16
    with pytest.raises(UserError, match="budget=lots is not a number of device-hours"):
        run(launch, *words, "budget=lots")


@pytest.mark.slow
def test_the_memory_of_a_size_is_its_own_whatever_was_measured_before(run, make_grid, tmp_path):
    """In one process the heap of a large size would hide the memory of a small one after it."""
    grid = make_grid()
    words = [f"grid={grid}", "run.tracker=tensorboard", "steps=1"]
    found = {}
    for name, widths in (("both", ["8", "0.25"]), ("small", ["0.25"])):
        store = tmp_path / name
        said = run(pilot, *words, f"store={store}", f"axes.width=[{','.join(widths)}]")
        assert re.findall(r" width (\S+): ", said)[: len(widths)] == widths  # in this order
        assert not (store / "trackers").exists()  # a pilot writes no tracker files
        sizes = [json.loads(path.read_text())["memory_bytes"] for path in store.glob("pilots/*")]
        found[name] = sorted(sizes, reverse=True)
    large, after = found["both"]
    assert after == pytest.approx(found["small"][0], rel=0.2)
    assert large > 1.5 * after
