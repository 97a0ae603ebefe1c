"""The pilot through its command, and what launch makes of it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(module, *words, code=0):
    said = subprocess.run(
        [sys.executable, "-m", module, *map(str, words)],
        cwd=ROOT, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert said.returncode == code, said.stdout + said.stderr
    return said.stdout + said.stderr


@pytest.mark.slow
def test_a_pilot_makes_costs_known_and_budgets_kept(make_grid, tmp_path):
    grid, store = make_grid(seeds="0, 1, 2"), tmp_path / "store"
    words = f"grid={grid}", f"store={store}"
    assert "never measured" in run("harness.launch", *words, "budget=5", code=2)
    said = run("harness.pilot", *words, "steps=4")
    assert "s per epoch" in said
    (kept,) = store.glob("pilots/*.json")
    pilot = json.loads(kept.read_text())
    assert pilot["seconds_per_epoch"] > 0
    assert 0 <= pilot["data_share"] < 1
    assert pilot["memory_bytes"] > 1 << 20
    assert "known already" in run("harness.pilot", *words)
    assert not (store / "stages").exists()  # a pilot leaves no stage
    assert "device-hours still to be spent" in run("harness.launch", *words, "dry_run=true")
    assert "nothing was queued" in run("harness.launch", *words, "budget=0", code=2)
    said = run("harness.launch", *words, "budget=5", "run.gang=auto")
    assert "gang of digits cifar_resnet-8 width 0.25 batch 32: 1, " in said  # nothing to decode
    assert "by the pilot" in run("harness.status", *words)
    # what finished stages took says nothing of memory, nor does a pilot with whole batches
    assert "waiting for data" in run("harness.pilot", *words, "steps=1", "run.micro_batch_size=16")
    assert json.loads(kept.read_text())["micro_batch_size"] == 16
    assert "is no number" in run("harness.launch", *words, "budget=lots", code=2)


@pytest.mark.slow
def test_the_memory_of_a_size_is_its_own_whatever_was_measured_before(make_grid, tmp_path):
    """A heap that a large size grew would hide what the small one after it needs."""
    grid = make_grid()
    words = [f"grid={grid}", "run.tracker=tensorboard", "steps=1"]
    found = {}
    for name, widths in (("both", "8,0.25"), ("large", "8"), ("small", "0.25")):
        store = tmp_path / name
        run("harness.pilot", *words, f"store={store}", f"axes.width=[{widths}]")
        assert not (store / "trackers").exists()  # the stage's own run is for the stage
        sizes = [json.loads(path.read_text())["memory_bytes"] for path in store.glob("pilots/*")]
        found[name] = sorted(sizes, reverse=True)
    assert found["both"][0] == pytest.approx(found["large"][0], rel=0.2)
    assert found["both"][1] == pytest.approx(found["small"][0], rel=0.2)
    assert found["large"][0] > 1.5 * found["small"][0]
