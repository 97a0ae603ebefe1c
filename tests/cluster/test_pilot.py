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
    run("harness.launch", *words, "budget=5", "run.gang=auto")
    assert "by the pilot" in run("harness.status", *words)
    assert "is no number" in run("harness.launch", *words, "budget=lots", code=2)
